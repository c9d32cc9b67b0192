"""The engine's front on a real engine whose `run` can be held back."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from routers.instructions import Instruction
from server.engine.messages import Outcome, Sample
from server.engine.queue import Result
from server.engine.run import Engine
from server.engine.service import EngineService
from server.errors import DeadlinePassed, Draining, QueueFull, Unavailable

pytestmark = pytest.mark.anyio
BARE = [Sample(f"Text number {i}.", model="tiny-random") for i in range(6)]
NINE = [*BARE, *BARE[:3]]


class Gate:
    """Holds the engine before every batch, and remembers the batches."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.batches: list[list[Sample]] = []
        self._run = engine.run
        monkeypatch.setattr(engine, "run", self.run)

    def run(self, samples: Sequence[Sample]) -> list[Result]:
        self.batches.append(list(samples))
        assert self.open.wait(10)
        return self._run(samples)


@pytest.fixture
def gate(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(engine, monkeypatch)


@pytest.fixture
async def service(engine: Engine, gate: Gate) -> AsyncIterator[EngineService]:
    service = EngineService(engine, max_queue=9, max_batch=9)
    await service.start()
    yield service
    gate.open.set()
    await service.drain(10)


async def held(service: EngineService, gate: Gate, samples: Sequence[Sample]) -> asyncio.Task:
    """Submit, and wait until the engine is holding that batch."""
    task = asyncio.create_task(service.submit(samples))
    while not gate.batches:
        await asyncio.sleep(0.001)
    return task


async def test_results_come_back_in_order_whoever_shared_the_batch(service, gate, engine):
    gate.open.set()
    together = await asyncio.gather(*(service.submit([s]) for s in BARE[:3]), service.submit(BARE))
    for results, asked in zip(together, ([BARE[0]], [BARE[1]], [BARE[2]], BARE), strict=True):
        alone = engine.backbone.embed([s.input for s in asked])
        vectors = [r.answer.embedding for r in results]
        assert vectors == [pytest.approx(row.tolist(), abs=1e-5) for row in alone]


async def test_requests_that_arrive_while_the_engine_is_busy_share_a_batch(service, gate):
    first = await held(service, gate, BARE[:1])
    rest = [asyncio.create_task(service.submit([s])) for s in BARE[1:4]]
    await asyncio.sleep(0.01)
    gate.open.set()
    await asyncio.gather(first, *rest)
    assert [len(batch) for batch in gate.batches] == [1, 3]


async def test_a_full_queue_refuses_then_serves_again(service, gate):
    first = await held(service, gate, BARE[:1])
    waiting = asyncio.create_task(service.submit(NINE))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull) as refused:
        await service.submit(BARE[:1])
    assert refused.value.retry_after >= 1
    gate.open.set()
    await asyncio.gather(first, waiting)
    assert isinstance((await service.submit(BARE[:1]))[0], Outcome)


async def test_a_deadline_passes_in_the_queue_and_its_samples_never_run(service, gate):
    first = await held(service, gate, BARE[:1])
    with pytest.raises(DeadlinePassed):
        await service.submit(BARE[1:3], deadline=time.monotonic() + 0.02)
    gate.open.set()
    await first
    await service.submit(BARE[3:4])
    assert [len(batch) for batch in gate.batches] == [1, 1]


async def test_a_deadline_passes_while_the_batch_runs(service, gate):
    with pytest.raises(DeadlinePassed):
        await service.submit(BARE[:1], deadline=time.monotonic() + 0.02)
    assert len(gate.batches) == 1


async def test_a_cancelled_call_takes_its_samples_back(service, gate):
    first = await held(service, gate, BARE[:1])
    left = asyncio.create_task(service.submit(NINE))
    await asyncio.sleep(0.01)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    stays = asyncio.create_task(service.submit(BARE[1:3]))  # there is room again
    await asyncio.sleep(0.01)
    gate.open.set()
    await asyncio.gather(first, stays)
    assert [len(batch) for batch in gate.batches] == [1, 2]


async def test_draining_refuses_what_is_new_and_finishes_what_is_here(service, gate):
    first = await held(service, gate, BARE[:2])
    draining = asyncio.create_task(service.drain(10))
    await asyncio.sleep(0.01)
    assert not service.ready
    with pytest.raises(Draining):
        await service.submit(BARE[:1])
    gate.open.set()
    assert len(await first) == 2
    await draining
    assert not service.alive


async def test_a_drain_that_takes_too_long_fails_what_is_left(service, gate):
    first = await held(service, gate, BARE[:1])
    await service.drain(0.02)
    with pytest.raises(Draining):
        await first


async def test_a_sample_that_breaks_a_batch_costs_its_own_request_only(
    service, gate, engine, monkeypatch
):
    gate.open.set()
    run = engine.run

    def fragile(samples: Sequence[Sample]) -> list[Result]:
        if any(sample.input == "poison" for sample in samples):
            raise ZeroDivisionError("as a bug would")
        return run(samples)

    monkeypatch.setattr(engine, "run", fragile)
    poison = Sample("poison", model="tiny-random")
    (bad, first), (good,) = await asyncio.gather(
        service.submit([poison, BARE[0]]), service.submit([BARE[1]])
    )
    assert isinstance(bad, ZeroDivisionError)
    assert isinstance(first, Outcome)
    assert isinstance(good, Outcome)


async def test_retiring_is_not_ready_and_still_answers(service, gate):
    gate.open.set()
    service.retire()
    assert not service.ready
    assert len(await service.submit(BARE[:2])) == 2
    await service.drain(10)
    with pytest.raises(Draining):
        await service.submit(BARE[:1])


async def test_a_drain_waits_for_a_request_of_several_steps(service, gate):
    gate.open.set()
    with service.admitted() as submit:
        draining = asyncio.create_task(service.drain(10))
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await service.submit(BARE[:1])
        assert len(await submit(BARE[:1])) == 1
        assert len(await submit(BARE[1:3])) == 2
        assert not draining.done()
    await draining


async def test_a_request_of_several_steps_waits_its_turn_once(service, gate):
    with service.admitted() as submit:
        first = asyncio.create_task(submit(BARE[:1]))
        while not gate.batches:
            await asyncio.sleep(0.001)
        others = asyncio.create_task(service.submit(BARE[1:]))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, submit(BARE[:1]), others)
    assert gate.batches[1] == [BARE[0], *BARE[1:]]


async def test_a_second_drain_waits_for_nothing(service, gate):
    first = await held(service, gate, BARE[:1])
    await service.drain(0.02)
    await service.drain(1000)
    with pytest.raises(Draining):
        await first


async def test_what_waits_for_its_instruction_counts_as_waiting(engine):
    asked = [Sample(f"Text number {i}.") for i in range(9)]
    service = EngineService(engine, max_queue=10, writer=Slow())
    await service.start()
    one = asyncio.create_task(service.submit(asked))
    await asyncio.sleep(0.01)
    with pytest.raises(QueueFull):
        await service.submit(asked)
    service.writer.go.set()
    (first, *_) = await one
    assert first.trace.milliseconds["instruction"] >= 10
    await service.drain(10)


class Slow:
    """A writer that writes when it is told to."""

    name = "openai"

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def write(self, queries):
        await self.go.wait()
        return [Instruction("Do it.", "openai") for _ in queries]

    async def close(self) -> None:
        pass


async def test_who_waits_for_an_engine_that_dies_is_told(engine, monkeypatch):
    def die(samples: Sequence[Sample]) -> list[Result]:
        raise SystemExit("dead")

    service = EngineService(engine)
    await service.start()
    monkeypatch.setattr(engine, "run", die)
    asked = [asyncio.create_task(service.submit([sample])) for sample in BARE]
    for task in asked:
        with pytest.raises(Unavailable, match="engine died"):
            await asyncio.wait_for(task, 10)
    assert not service.alive
    with pytest.raises(Unavailable, match="engine died"):
        await service.submit(BARE)
    await service.drain(1)
