"""The line before the engine: order, fairness, bounds, deadlines."""

import asyncio
import time

import pytest

from server.engine.messages import Sample
from server.engine.queue import Job, SampleQueue, Slice
from server.errors import QueueFull

pytestmark = pytest.mark.anyio


def job(count: int, **given: float) -> Job:
    future = asyncio.get_running_loop().create_future()
    return Job([Sample(f"text {i}") for i in range(count)], future, **given)


def spans(batch: list[Slice]) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in batch]


async def test_a_batch_holds_several_jobs_and_no_more_than_asked():
    queue = SampleQueue(100)
    jobs = [job(2), job(3), job(4)]
    for each in jobs:
        queue.put(each)
    batch = queue.take(6)
    assert [part.job for part in batch] == jobs
    assert spans(batch) == [(0, 2), (0, 3), (0, 1)]
    assert queue.waiting == 3


async def test_the_rest_of_a_large_job_goes_behind_the_others():
    queue = SampleQueue(100)
    large, small = job(10), job(1)
    queue.put(large)
    queue.put(small)
    assert spans(queue.take(4)) == [(0, 4)]
    second = queue.take(4)
    assert [part.job for part in second] == [small, large]
    assert spans(second) == [(0, 1), (4, 7)]


async def test_what_goes_on_with_a_request_that_waited_is_next():
    """In up to half of a batch; it waits behind the others with its rest, as any large job does."""
    queue = SampleQueue(100)
    new, first, second = job(8), job(1), job(6)
    queue.put(new)
    queue.put(first, again=True)
    queue.put(second, again=True)
    batch = queue.take(4)
    assert [part.job for part in batch] == [first, second, new]
    assert spans(batch) == [(0, 1), (0, 1), (0, 2)]
    assert [part.job for part in queue.take(7)] == [second, new]
    assert queue.waiting == 4


async def test_what_goes_on_has_the_room_that_nobody_else_wants():
    queue = SampleQueue(100)
    new, onward, gone = job(1), job(9), job(1)
    for each in (onward, gone):
        queue.put(each, again=True)
    queue.put(new)
    queue.remove(gone)
    assert spans(queue.take(6)) == [(0, 5), (0, 1)]
    assert spans(queue.take(6)) == [(5, 9)]
    assert queue.waiting == 0


async def test_a_full_queue_refuses_and_says_when_to_return():
    queue = SampleQueue(3)
    queue.put(job(2))
    with pytest.raises(QueueFull) as refused:
        queue.put(job(2), retry_after=7)
    assert refused.value.retry_after == 7
    queue.put(job(1))
    assert queue.waiting == 3


async def test_an_empty_queue_takes_a_job_above_its_limit():
    queue = SampleQueue(3)
    queue.put(job(5))
    assert spans(queue.take(8)) == [(0, 5)]


async def test_jobs_past_their_deadline_or_done_are_not_taken():
    queue = SampleQueue(100)
    late, left, good = job(2, deadline=time.monotonic() - 1), job(3), job(1)
    for each in (late, left, good):
        queue.put(each)
    left.future.cancel()
    assert [part.job for part in queue.take(8)] == [good]
    assert queue.waiting == 0


async def test_a_removed_job_gives_its_room_back():
    queue = SampleQueue(100)
    gone = job(5)
    queue.put(gone)
    queue.take(2)
    queue.remove(gone)
    queue.remove(gone)
    assert queue.waiting == 0


async def test_take_waits_for_work_and_ends_when_closed():
    queue = SampleQueue(100)
    taking = asyncio.create_task(asyncio.to_thread(queue.take, 4))
    await asyncio.sleep(0.02)
    assert not taking.done()
    queue.put(job(1))
    queue.wake()
    assert spans(await taking) == [(0, 1)]
    queue.close()
    assert queue.take(4) == []
