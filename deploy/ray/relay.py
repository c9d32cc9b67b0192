"""Requests answered by one of the engine's replicas: the one file that differs from one process.

Which replica is Ray Serve's choice: of two at random the one with fewer requests. Knows nothing of
what is asked, but for the expert's name where requests go to whoever has it in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any, cast

from pydantic_core import from_json
from ray.exceptions import RayActorError, RayError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from server.relay.messages import Absent, Asked, Lost, Message, Whole

log = logging.getLogger("sailplane.relay")
BEAT = 1.0
"""Seconds without an answer after which it is seen whether anybody is there at all."""
ALIVE = 2.0
"""Seconds in which a replica says that it is there."""


class RayRelay:
    """A `Relay` to the replicas behind a handle.

    Args:
        by_expert: whether a request that names an expert goes to a replica that has had it.
    """

    def __init__(self, handle: DeploymentHandle[Any], *, by_expert: bool = False) -> None:
        self._handle, self._by_expert = handle, by_expert
        self._answering = handle.options(method_name="answer", stream=True)
        self._alive: asyncio.Task[bool] | None = None

    async def ask(self, asked: Asked) -> AsyncGenerator[Message]:
        """See `Relay`."""
        handle = self._answering
        if self._by_expert and (model := model_of(asked)):
            handle = handle.options(multiplexed_model_id=model)
        response = cast("DeploymentResponseGenerator[Message]", handle.remote(asked))
        ended = False
        try:
            message = await self._first(response)
            while message is not None:
                yield message
                message = await _next(response)
            ended = True
        except RayTaskError:
            raise  # the app failed, not its process: its log says why
        except (RayActorError, WorkerCrashedError, DeploymentUnavailableError) as error:
            raise Lost(type(error).__name__) from error
        finally:
            if not ended:
                response.cancel()

    async def _first(self, response: DeploymentResponseGenerator[Message]) -> Message | None:
        """What comes first; while nothing does, look now and then whether anybody is there.

        Raises:
            Absent: nobody is.
        """
        waiting = asyncio.ensure_future(_next(response))
        try:
            while not (await asyncio.wait((waiting,), timeout=BEAT))[0]:
                if not await self._anybody():
                    raise Absent
            return waiting.result()
        finally:
            waiting.cancel()

    async def _anybody(self) -> bool:
        """Whether a replica is there; requests that wonder at one time share the answer."""
        if self._alive is None or self._alive.done():
            self._alive = asyncio.create_task(self._look())
        return await asyncio.shield(self._alive)

    async def _look(self) -> bool:
        try:
            told = await self._tell_all("alive", timeout=ALIVE)
        except TimeoutError:
            return True  # busy, or stopped: what is asked of it has not failed yet
        return any(answer is True for answer in told)

    async def ask_all(self, asked: Asked, seconds: float = 60.0) -> Sequence[Whole]:
        """See `Relay`."""
        try:
            told = await self._tell_all("whole", asked, timeout=seconds)
        except TimeoutError:
            log.warning("not all replicas answered %s in time", asked.path)
            return ()
        for error in told:
            if isinstance(error, BaseException):
                log.warning("a replica did not answer %s: %s", asked.path, type(error).__name__)
        return [answer for answer in told if isinstance(answer, Whole)]

    async def _tell_all(self, method: str, *given: object, timeout: float) -> Sequence[object]:
        """What each replica returns, or raised.

        Raises:
            TimeoutError: one of them took longer.
        """
        try:
            # Around all of it: with nobody there, even to send it may wait.
            async with asyncio.timeout(timeout):
                response = self._handle.broadcast(method, *given)
                return await response.results_async(return_exceptions=True)
        except (RayServeException, RayError):
            return ()  # there are none


async def _next(response: DeploymentResponseGenerator[Message]) -> Message | None:
    with suppress(StopAsyncIteration):
        return await response.__anext__()
    return None


def model_of(asked: Asked) -> str | None:
    """The model that a request names; None where it leaves the choice, or has no such field."""
    if asked.method != "POST" or not asked.body:
        return None
    try:
        body = from_json(asked.body)
    except ValueError:
        return None
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) and model != "auto" else None
