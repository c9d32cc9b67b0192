"""Requests answered by one of the engine's replicas: where a set differs from one process.

Which replica is Ray Serve's choice: of two at random the one with fewer requests. Knows nothing of
what is asked, but for the expert's name where requests go to whoever has it in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any, cast
from zlib import crc32

from pydantic_core import from_json
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
)
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from server.relay.messages import Absent, Asked, Lost, Message, Whole

log = logging.getLogger("sailplane.relay")
BEAT = 1.0
"""Seconds without a replica for a request after which it is seen whether there is any."""
ALIVE = 2.0
"""Seconds in which a replica says that it is there."""
PLACES = 256
"""Names of experts are told to Ray as one of so many numbers: it keeps what it is told for ever."""
FAILED = (RayError, RayServeException)


class RayRelay:
    """A `Relay` to the replicas behind a handle.

    Args:
        by_expert: whether a request that names an expert goes to a replica that has had it.
    """

    def __init__(self, handle: DeploymentHandle[Any], *, by_expert: bool = False) -> None:
        self._handle, self._by_expert = handle, by_expert
        self._answering = handle.options(method_name="answer", stream=True)
        self._looking: asyncio.Task[bool] | None = None
        self._deserted = False

    async def ask(self, asked: Asked) -> AsyncGenerator[Message]:
        """See `Relay`."""
        # While nobody is there, Ray keeps what is sent until somebody comes, though we give it up.
        if self._deserted and not await self._anybody():
            raise Absent
        handle = self._answering
        if self._by_expert and (model := model_of(asked)):
            handle = handle.options(multiplexed_model_id=place_of(model))
        response = cast("DeploymentResponseGenerator[Message]", handle.remote(asked))
        ended = False
        try:
            await self._taken(response)
            while (message := await _next(response)) is not None:
                yield message
            ended = True
        except RayTaskError:
            raise  # the app failed, not its process: its log says why
        except (DeploymentUnavailableError, BackPressureError):
            raise Absent from None
        except FAILED as error:
            raise Lost(type(error).__name__) from error
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise Lost("cancelled at the replica") from None
        finally:
            if not ended:
                with suppress(*FAILED):  # what kept it from being sent is raised again
                    response.cancel()

    async def _taken(self, response: DeploymentResponseGenerator[Message]) -> None:
        """Wait until a replica has taken a request; see now and then whether there is any.

        One that has taken it and dies is told of by its own error.

        Raises:
            Absent: there is none.
        """
        taken = asyncio.ensure_future(response._to_object_ref_gen())
        try:
            while not (await asyncio.wait((taken,), timeout=BEAT))[0]:
                if not await self._anybody() and not taken.done():
                    raise Absent
            taken.result()
        finally:
            taken.cancel()

    async def _anybody(self) -> bool:
        """Whether a replica is there; requests that wonder at one time share the answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> bool:
        told = await self._tell_all("alive", seconds=ALIVE)
        # Who is silent is busy, or stopped: what is asked of it has not failed yet.
        found = any(answer is True or isinstance(answer, TimeoutError) for answer in told)
        self._deserted = not found
        return found

    async def ask_all(self, asked: Asked, seconds: float) -> Sequence[Whole]:
        """See `Relay`."""
        told = await self._tell_all("whole", asked, seconds=seconds)
        for error in told:
            if isinstance(error, BaseException):
                log.warning("a replica did not answer %s: %s", asked.path, type(error).__name__)
        return [answer for answer in told if isinstance(answer, Whole)]

    async def _tell_all(self, method: str, *given: object, seconds: float) -> Sequence[object]:
        """What each replica returned, or raised; `TimeoutError` of those that were not in time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            async with asyncio.timeout_at(end):
                # `results_async` would give nothing of all where one is silent.
                sent = await self._handle.broadcast(method, *given)._fetch_replica_results_async()
        except TimeoutError as late:
            return (late,)
        except FAILED:
            return ()  # there are none
        calls = [asyncio.ensure_future(one.get_async()) for one in sent]
        try:
            await asyncio.wait(calls, timeout=max(0.0, end - loop.time()))
            return [_outcome(call) for call in calls]
        finally:
            for call in calls:
                call.cancel()


def _outcome(call: asyncio.Future[object]) -> object:
    if not call.done():
        return TimeoutError()
    if call.cancelled():
        return asyncio.CancelledError()
    return call.exception() or call.result()


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


def place_of(model: str) -> str:
    """The number that stands for a model."""
    return str(crc32(model.encode("utf-8", "surrogatepass")) % PLACES)
