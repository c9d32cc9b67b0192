"""The line of samples before the engine: bounded, fair, aware of deadlines and of who has left.

Filled by the event loop, emptied by the engine's thread. Knows nothing of what a sample asks.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.engine.messages import Outcome, Sample
from server.errors import QueueFull

Result = Outcome | Exception
"""What comes back for one sample; an error stands in for that sample alone."""


class Submit(Protocol):
    """`EngineService.submit`, for a request that was let in."""

    def __call__(
        self, samples: Sequence[Sample], /, *, deadline: float | None = None
    ) -> Awaitable[list[Result]]:
        """Results in the order of `samples`."""
        ...


@dataclass(eq=False, slots=True)
class Job:
    """The samples of one request.

    Attributes:
        deadline: on the clock of `time.monotonic`, or None. entered: on that of
            `time.perf_counter`.
        taken: how many samples the engine has taken. left: how many results are missing.
    """

    samples: Sequence[Sample]
    future: asyncio.Future[list[Result]]
    deadline: float | None = None
    entered: float = field(default_factory=time.perf_counter)
    taken: int = 0
    left: int = 0
    results: list[Result | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = len(self.samples)
        self.results = [None] * self.left

    @property
    def waiting(self) -> int:
        """Samples that the engine has not taken."""
        return len(self.samples) - self.taken


@dataclass(frozen=True, slots=True)
class Slice:
    """Samples `start` to `stop` of one job, in a batch."""

    job: Job
    start: int
    stop: int

    @property
    def samples(self) -> Sequence[Sample]:
        """The samples, without a copy where it is the whole job."""
        samples = self.job.samples
        whole = self.stop - self.start == len(samples)
        return samples if whole else samples[self.start : self.stop]


class SampleQueue:
    """Jobs in order of arrival.

    A job's rest goes behind the others once a batch took its share, so that a request of 400
    questions delays its neighbours by one batch and no more. What goes on with a request that has
    waited before is next, in up to half of a batch.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0
        self._jobs: deque[Job] = deque()
        self._going_on: deque[Job] = deque()
        self._ready = threading.Condition()
        self._closed = False

    def put(self, job: Job, retry_after: int = 1, *, again: bool = False) -> None:
        """Add a job, `again` if its request has waited before; the engine hears at `wake`.

        An empty queue takes a request of any size: a limit below one request's size must not
        shut it out for good.

        Raises:
            QueueFull: more samples would wait than the limit allows.
        """
        count = len(job.samples)
        with self._ready:
            self.require_room(count, 0, retry_after)
            self.waiting += count
            (self._going_on if again else self._jobs).append(job)

    def require_room(self, count: int, coming: int, retry_after: int = 1) -> None:
        """Check that `count` more samples could wait, beside those that are `coming`.

        Raises:
            QueueFull: they could not.
        """
        waiting = self.waiting + coming
        if waiting and waiting + count > self.limit:
            raise QueueFull(
                f"{waiting} samples wait and the limit is {self.limit}.", retry_after=retry_after
            )

    def wake(self) -> None:
        """Tell the engine that there is work."""
        with self._ready:
            self._ready.notify()

    def close(self) -> None:
        """Let `take` return an empty batch once nothing waits."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def remove(self, job: Job) -> None:
        """Take back what the engine has not taken."""
        with self._ready:
            for jobs in (self._jobs, self._going_on):
                if job in jobs:
                    jobs.remove(job)
                    self.waiting -= job.waiting

    @property
    def closed(self) -> bool:
        """Whether nothing more is put."""
        return self._closed

    def take(
        self, most: int, patience: float = 0.0, busy: Callable[[], bool] = lambda: False
    ) -> list[Slice]:
        """Wait for work and take up to `most` samples; empty when closed.

        `patience` is for a busy engine only: when jobs waited already but do not fill a batch,
        give the event loop so many seconds to bring the ones it is reading.

        Args:
            busy: whether there is other work than what is put here; then nothing is waited for.
        """
        with self._ready:
            full = self.waiting >= most or self._closed or busy()
            if self.waiting and not full and patience:
                self._ready.wait(patience)
            while not (batch := self._fill(most)) and not self._closed and not busy():
                self._ready.wait()
            return batch

    def _fill(self, most: int) -> list[Slice]:
        others = self.waiting - sum(job.waiting for job in self._going_on)
        first, rest = self._taken(self._going_on, max(most // 2, most - others, 1))
        room = most - sum(part.stop - part.start for part in first)
        then, more = self._taken(self._jobs, room)
        self._jobs.extend(rest + more)
        return first + then

    def _taken(self, jobs: deque[Job], most: int) -> tuple[list[Slice], list[Job]]:
        """The first of some jobs, up to so many samples, and what of them is left."""
        now, batch, rest = time.monotonic(), list[Slice](), list[Job]()
        while jobs and most:
            job = jobs.popleft()
            if job.future.done() or (job.deadline is not None and job.deadline <= now):
                self.waiting -= job.waiting  # its own timer answers it
                continue
            stop = min(len(job.samples), job.taken + most)
            batch.append(Slice(job, job.taken, stop))
            most -= stop - job.taken
            self.waiting -= stop - job.taken
            job.taken = stop
            if stop < len(job.samples):
                rest.append(job)
        return batch, rest
