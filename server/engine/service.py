"""The engine's asynchronous front: queue, micro-batches, deadlines, cancellation, drain.

One thread runs the engine, batch after batch; a batch is whatever waits when the engine becomes
free. The event loop only ever waits. Knows nothing of HTTP and nothing of routing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from math import ceil
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from routers.instructions import InstructionWriter
from server.engine.generation.front import Writing
from server.engine.messages import Sample
from server.engine.queue import Job, Result, SampleQueue, Slice, Submit
from server.engine.sparing import run_sparing
from server.engine.timeline import noted
from server.errors import DeadlinePassed, Draining, Unavailable
from server.instructions.fill import with_instructions
from server.observability.metrics import Metrics

if TYPE_CHECKING:
    from server.engine.run import Engine

log = logging.getLogger("sailplane.engine")
P = ParamSpec("P")
T = TypeVar("T")
STOPPED = "The server stopped before it could answer."
DEAD = "The engine died, and the server must be replaced; its log has the reason."


class EngineService:
    """Takes samples from many requests at once and gives each request its own results.

    Args:
        engine: what answers. max_queue: samples that may wait. max_batch: samples per batch.
        max_wait_ms: how long a busy engine waits for an unfilled batch; an idle one never waits.
        writer: writes the instructions that callers leave out; None leaves them to the template.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_queue: int = 1024,
        max_batch: int = 32,
        max_wait_ms: float = 0.2,
        metrics: Metrics | None = None,
        writer: InstructionWriter | None = None,
    ) -> None:
        self.engine, self.writer = engine, writer
        self.metrics = metrics or Metrics()
        self.max_batch, self.patience = max_batch, max_wait_ms / 1000
        self.retiring = self.draining = False
        self._queue = SampleQueue(max_queue)
        self._jobs: set[Job] = set()
        self._admitted = 0  # requests that were let in and are not answered
        self._none_left = asyncio.Event()
        loop = engine.generation
        self.writing = Writing(loop, self._wake, max_queue) if loop else None
        if loop:
            self.metrics.watch_generation(loop)
        self._writing = 0  # samples whose instructions are being written
        self._ended = self._dead = self._waking = False
        self._rate = 0.0  # samples per second, smoothed
        self._admin = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.metrics.watch_queue(lambda: self._queue.waiting, max_queue)
        self.metrics.watch_ready(lambda: self.ready)
        self.metrics.watch_engine(engine)

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._thread is not None

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs."""
        return self._thread is not None and self._thread.is_alive() and not self._dead

    @property
    def ready(self) -> bool:
        """Whether new requests should come here; while retiring they are still taken."""
        return self.alive and not self.retiring

    async def start(self) -> None:
        """Start the engine's thread."""
        self._loop = loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._work, args=(loop,), name="sailplane-engine", daemon=True
        )
        self._thread.start()

    def retire(self) -> None:
        """Stop being ready, and go on answering: whoever sends requests should look elsewhere."""
        self.retiring = True

    async def drain(self, timeout: float | None = None) -> None:
        """Refuse what is new, finish what is here in `timeout` seconds, stop; only once."""
        self.retiring = self.draining = True
        if self._ended:
            return
        end = None if timeout is None else time.monotonic() + timeout
        if self._admitted:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._none_left.wait()
        self._ended = True
        for job in list(self._jobs):
            self._fail(job, Draining(STOPPED))
        self._queue.close()
        if self._thread is not None:
            left = None if end is None else max(0.0, end - time.monotonic())
            await asyncio.to_thread(self._thread.join, left)
        if self.writer is not None:
            await self.writer.close()

    @contextmanager
    def admitted(self) -> Generator[Submit]:
        """Let one request in, and give it `submit`: a drain waits for it, the queue only once.

        Raises:
            Draining: nothing new is let in.
        """
        if self.draining or not self.alive:
            raise Unavailable(DEAD) if self._dead else Draining("The server takes no requests.")
        self._admitted += 1
        again = iter([False])
        try:
            yield lambda asked, *, deadline=None: self._submit(asked, deadline, next(again, True))
        finally:
            self._admitted -= 1
            if not self._admitted and self.draining:
                self._none_left.set()

    async def submit(
        self, samples: Sequence[Sample], *, deadline: float | None = None
    ) -> list[Result]:
        """Results in the order of `samples`; a failed sample is an error in its place.

        Args:
            deadline: on the clock of `time.monotonic`. A cancelled call takes back its samples.

        Raises:
            QueueFull, Draining: nothing was queued.
            DeadlinePassed: the deadline came first.
        """
        with self.admitted() as submit:
            return await submit(samples, deadline=deadline)

    async def _submit(
        self, samples: Sequence[Sample], deadline: float | None, again: bool
    ) -> list[Result]:
        """`submit` for a request that was let in; `again` if it has waited before."""
        if self.writer is not None:
            samples = await self._written(samples, self.writer, deadline)
        if self._ended or self._dead:
            raise Unavailable(DEAD) if self._dead else Draining(STOPPED)
        loop = asyncio.get_running_loop()
        job = Job(samples, loop.create_future(), deadline)
        self._queue.put(job, self._retry_after(), again=again)
        if self._queue.waiting <= self.max_batch:  # further ones might push each other out again
            self.engine.expect(samples)
        self._jobs.add(job)
        self._wake_soon(loop)
        late = DeadlinePassed("The deadline passed before the answer.")
        timer = None if deadline is None else loop.call_at(deadline, self._fail, job, late)
        try:
            return noted(await job.future, job)
        finally:
            self._jobs.discard(job)
            if timer is not None:
                timer.cancel()
            if job.taken < len(samples):
                self._queue.remove(job)

    async def run_blocking(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run slow work on the library off the event loop, one at a time.

        It runs to its end even if the caller is cancelled: a change must not be left half done.
        """

        async def alone() -> T:
            async with self._admin:
                return await asyncio.to_thread(work, *args, **kwargs)

        task = asyncio.ensure_future(alone())
        # Looked at, though the caller may have left: asyncio would complain otherwise.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    def change(self, work: Callable[[], None]) -> None:
        """`run_blocking` for a thread of our own, which waits for its turn and the end.

        Raises:
            Draining: nothing new is let in.
        """
        if self._loop is None or self.draining:
            raise Draining("The server is not taking changes.")
        asyncio.run_coroutine_threadsafe(self.run_blocking(work), self._loop).result()

    async def _written(
        self, samples: Sequence[Sample], writer: InstructionWriter, deadline: float | None
    ) -> Sequence[Sample]:
        """The samples with instructions; what is being written counts as waiting.

        Raises:
            QueueFull: the queue could not take the samples afterwards.
        """
        coming = len({id(sample.shared or sample) for sample in samples})  # written for, at most
        self._queue.require_room(coming, self._writing, self._retry_after())
        self._writing += coming
        try:
            return await with_instructions(samples, writer, self.engine.presets, deadline)
        finally:
            self._writing -= coming

    def require_room(self) -> None:
        """Raise `QueueFull` unless one more sample could wait."""
        self._queue.require_room(1, 0, self._retry_after())

    def _wake_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the engine once for all requests the loop reads in this turn: a free batch."""
        if not self._waking:
            self._waking = True
            loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = False
        self._queue.wake()

    def _retry_after(self) -> int:
        """Seconds until what waits now should be answered."""
        return max(1, ceil(self._queue.waiting / self._rate)) if self._rate else 1

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """The engine's thread. Should it die, nobody waits for what will not come."""
        try:
            self._serve(loop)
        except BaseException:
            log.critical("the engine died", exc_info=True)
            loop.call_soon_threadsafe(self._give_up)

    def _give_up(self) -> None:
        self._dead = True
        for job in list(self._jobs):
            self._fail(job, Unavailable(DEAD))
        if self.engine.generation:
            self.engine.generation.fail_all(Unavailable(DEAD))

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Batch, run, scatter."""
        writing = self.engine.generation
        while True:
            batch = self._queue.take(
                self.max_batch, self.patience, lambda: writing is not None and writing.busy
            )
            if batch:
                begun = time.perf_counter()
                samples = [sample for part in batch for sample in part.samples]
                results = run_sparing(self.engine.run, samples)
                seconds = time.perf_counter() - begun
                with suppress(RuntimeError):  # the loop may be closed: a drain ran out of time
                    loop.call_soon_threadsafe(self._scatter, batch, results, begun, seconds)
            elif self._queue.closed:
                break
            if writing is not None and writing.busy:
                writing.step()
        if writing is not None:
            writing.fail_all(Draining(STOPPED))

    def _scatter(
        self, batch: Sequence[Slice], results: Sequence[Result], begun: float, seconds: float
    ) -> None:
        """Give every job of a batch its results; runs in the event loop."""
        rate = len(results) / max(seconds, 1e-6)
        self._rate = rate if not self._rate else 0.8 * self._rate + 0.2 * rate
        at = 0
        for part in batch:
            job, count = part.job, part.stop - part.start
            job.results[part.start : part.stop] = results[at : at + count]
            at += count
            job.left -= count
            if not job.left and not job.future.done():
                job.future.set_result(cast("list[Result]", job.results))
            self.metrics.waited.observe(begun - job.entered)
        samples = [sample for part in batch for sample in part.samples]
        self.metrics.batch(seconds, results, {i for i, s in enumerate(samples) if s.record})

    def _fail(self, job: Job, error: Exception) -> None:
        if not job.future.done():
            job.future.set_exception(error)
