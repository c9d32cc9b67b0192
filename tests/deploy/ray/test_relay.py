"""What the relay makes of all that Ray may do with a request: a handle that does it on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deploy.ray import relay as of
from deploy.ray.relay import RayRelay, place_of
from server.relay.messages import Absent, Asked, Chunk, Head, Lost, Whole

pytestmark = pytest.mark.anyio
ASKED = Asked("POST", "/v1/decisions", b"/v1/decisions", b"", (), b"{}")
ANSWER = [Head(200, (), b"a", more=True), Chunk(b"b", more=False)]
WELL = Whole("one", Head(200, (), b"ready"))


@dataclass
class Response:
    """An answer: refused before it is taken, or cut by an error after some messages."""

    refused: Exception | None = None
    cut: BaseException | None = None
    taken_after: float = 0.0
    seconds: float = 0.0
    cancelled: int = 0
    left: list[Any] = field(default_factory=lambda: list(ANSWER))

    async def _to_object_ref_gen(self) -> None:
        await asyncio.sleep(self.taken_after)
        if self.refused:
            raise self.refused

    async def __anext__(self) -> Any:
        await asyncio.sleep(self.seconds)
        if self.cut and len(self.left) < 2:
            raise self.cut
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)

    def cancel(self) -> None:
        self.cancelled += 1
        if self.refused:
            raise self.refused


@dataclass
class Told:
    """One replica's answer to what all are told."""

    answer: Any

    async def get_async(self) -> Any:
        if self.answer == "never":
            await asyncio.sleep(3600)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@dataclass
class Handle:
    """A deployment's handle."""

    response: Response
    there: list[Any] = field(default_factory=lambda: [True])
    asked: int = 0
    named: dict[str, Any] = field(default_factory=dict)

    def options(self, **named: Any) -> Handle:
        self.named |= named
        return self

    def remote(self, asked: Asked) -> Response:
        self.asked += 1
        return self.response

    def broadcast(self, method: str, *given: object) -> Any:
        handle = self

        class Sent:
            async def _fetch_replica_results_async(self) -> list[Told]:
                if not handle.there:
                    raise DeploymentUnavailableError(None)  # type: ignore[arg-type]
                return [Told(answer) for answer in handle.there]

        return Sent()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of, "BEAT", 0.05)
    monkeypatch.setattr(of, "ALIVE", 0.1)


async def answer_of(relay: RayRelay) -> list[Any]:
    return [message async for message in relay.ask(ASKED)]


async def test_an_answer_comes_part_by_part() -> None:
    response = Response()
    assert await answer_of(RayRelay(Handle(response))) == ANSWER  # type: ignore[arg-type]
    assert not response.cancelled


@pytest.mark.parametrize(
    "error", [ActorDiedError, lambda: OutOfMemoryError("short"), asyncio.CancelledError]
)
async def test_a_replica_that_is_lost_is_lost_however_it_is_told(
    error: Callable[[], BaseException],
) -> None:
    response = Response(cut=error())
    with pytest.raises(Lost):
        await answer_of(RayRelay(Handle(response)))  # type: ignore[arg-type]
    assert response.cancelled == 1


@pytest.mark.parametrize(
    "error",
    [DeploymentUnavailableError(None), BackPressureError(1, 1)],  # type: ignore[arg-type]
)
async def test_what_could_not_be_sent_has_nobody_and_no_other_error(error: Exception) -> None:
    with pytest.raises(Absent):
        await answer_of(RayRelay(Handle(Response(refused=error))))  # type: ignore[arg-type]


async def test_where_nobody_takes_it_and_nobody_is_that_is_said() -> None:
    handle = Handle(Response(taken_after=3600), there=[])
    relay = RayRelay(handle)  # type: ignore[arg-type]
    with pytest.raises(Absent):
        await answer_of(relay)
    with pytest.raises(Absent):
        await answer_of(relay)
    assert handle.asked == 1, "nothing more is sent to nobody"
    handle.there, handle.response = [True], Response()
    assert await answer_of(relay) == ANSWER


async def test_what_was_taken_is_waited_for_though_nobody_is_to_be_seen() -> None:
    handle = Handle(Response(seconds=0.3), there=[])
    assert await answer_of(RayRelay(handle)) == ANSWER  # type: ignore[arg-type]


@pytest.mark.parametrize("silent", ["never", asyncio.CancelledError(), ActorDiedError()])
async def test_one_that_is_silent_takes_the_others_answers_from_nobody(silent: Any) -> None:
    handle = Handle(Response(), there=[silent, WELL])
    relay = RayRelay(handle)  # type: ignore[arg-type]
    assert await relay.ask_all(ASKED, 0.2) == [WELL]


async def test_a_busy_one_counts_as_there() -> None:
    handle = Handle(Response(taken_after=0.4), there=["never"])
    assert await answer_of(RayRelay(handle)) == ANSWER  # type: ignore[arg-type]


async def test_who_leaves_cancels_the_work() -> None:
    response = Response(seconds=3600)
    relay = RayRelay(Handle(response))  # type: ignore[arg-type]
    task = asyncio.ensure_future(answer_of(relay))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert response.cancelled == 1


async def test_an_expert_is_told_to_ray_as_a_number() -> None:
    handle = Handle(Response())
    asked = Asked("POST", "/v1/decisions", b"", b"", (), b'{"model": "mood"}')
    relay = RayRelay(handle, by_expert=True)  # type: ignore[arg-type]
    told: AsyncIterator[Any] = relay.ask(asked)
    assert [message async for message in told] == ANSWER
    assert handle.named["multiplexed_model_id"] == place_of("mood")
    assert place_of("mood").isdigit()
