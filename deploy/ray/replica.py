"""One engine and its app in a Ray actor: what `sailplane serve` runs, without the listener."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path

from ray import serve

from deploy.ray.scaling import WAITING
from experts.memory import spare_collector
from server.build import build_app
from server.cli.common import tame_libraries
from server.cli.public import open_audit_log
from server.observability.logs import configure_logs
from server.relay.local import LocalRelay
from server.relay.messages import Asked, Message, Whole
from server.settings import Settings


class Replica:
    """A deployment's class.

    Args:
        values: the settings, as `options.plain` gives them.
        by_expert: whether Ray is told which experts were asked for here.
    """

    async def __init__(self, values: Mapping[str, object], by_expert: bool = False) -> None:
        settings = Settings(**values)  # type: ignore[arg-type]
        tame_libraries(settings.threads)
        configure_logs(settings.log_level.upper())
        open_audit_log(settings)
        name = serve.get_replica_context().replica_tag
        settings = settings.model_copy(update={"routing_log": own(settings.routing_log, name)})
        app = await asyncio.to_thread(build_app, settings)
        self._by_expert = by_expert
        self._service = app.state.context.service
        self._running = app.router.lifespan_context(app)
        await self._running.__aenter__()
        self._relay = LocalRelay(app, name)
        spare_collector()

    async def answer(self, asked: Asked) -> AsyncGenerator[Message]:
        """The answer to a request, part by part."""
        if self._by_expert and (place := serve.get_multiplexed_model_id()):
            await self._note(place)
        async with aclosing(self._relay.ask(asked)) as answer:
            async for message in answer:
                yield message

    async def whole(self, asked: Asked) -> Whole:
        """The answer to a request, in one piece, and whose it is."""
        return await self._relay.whole(asked)

    async def alive(self) -> bool:
        """Whether this replica takes requests."""
        return self._service.ready

    async def check_health(self) -> None:
        """Raise where the process must be replaced; Ray asks again and again."""
        if not (self._service.alive or self._service.draining):
            raise RuntimeError("the engine died")

    async def pid(self) -> int:
        """Of this process."""
        return os.getpid()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `scaling.by_queue` goes by."""
        waiting = self._service.metrics.registry.get_sample_value("sailplane_queue_samples")
        return {WAITING: waiting or 0.0}

    @serve.multiplexed(max_num_models_per_replica=-1)
    async def _note(self, place: str) -> str:
        """Tells Ray that experts were asked for here; the engine loads them when it needs them."""
        return place

    async def __del__(self) -> None:
        """Drain. Ray has sent nothing new for a while, and waited for what was asked."""
        if hasattr(self, "_relay"):
            await self._running.__aexit__(None, None, None)


def own(path: Path | None, name: str) -> Path | None:
    """A file of one replica's own: none may rotate another's."""
    return path and path.with_name(f"{path.stem}-{name}{path.suffix}")
