"""Loaded experts in memory: loaded once however many ask, evicted by least recent use.

A lease pins its experts; a pinned expert is never evicted, so the cache may go over its budget
for as long as the leases in force need more. Knows neither files nor requests.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from experts.errors import ExpertError
from experts.versions import parse_reference
from experts.weights import ExpertWeights


@dataclass(frozen=True)
class CacheStats:
    """Counters since the start, and the bytes and experts held now."""

    lookups: int
    hits: int
    evictions: int
    bytes: int
    experts: int


@dataclass(eq=False)
class _Slot:
    """One expert in the cache, or on its way in. `nbytes` is what it adds to the cache's bytes."""

    id: str
    future: Future[ExpertWeights] = field(default_factory=Future)
    pins: int = 0
    nbytes: int = 0
    dropped: bool = False

    def __post_init__(self) -> None:
        # A running future cannot be cancelled: one waiter that leaves must not take it from others.
        self.future.set_running_or_notify_cancel()


class Lease:
    """Experts pinned for one batch. Release it when the pass is done.

    Attributes:
        experts: what could be loaded, by id. failed: why the others could not.
        held: the ids that were in memory already. hits, misses: how many were, and were not.
    """

    def __init__(
        self,
        experts: dict[str, ExpertWeights],
        failed: dict[str, ExpertError],
        held: frozenset[str],
        unpin: Callable[[], None],
    ) -> None:
        self.experts = experts
        self.failed = failed
        self.held = held
        self.hits = len(held)
        self.misses = len(experts) + len(failed) - self.hits
        self._unpin: Callable[[], None] | None = unpin

    def release(self) -> None:
        """Unpin; a second call does nothing."""
        unpin, self._unpin = self._unpin, None
        if unpin:
            unpin()


class ExpertCache:
    """An LRU cache by bytes.

    Args:
        load: makes an expert from its id; it may raise any `ExpertError`. budget: in bytes.
        workers: how many experts load at the same time.
        on_load: told the id and seconds of every load that succeeded.
    """

    def __init__(
        self,
        load: Callable[[str], ExpertWeights],
        budget: int,
        *,
        workers: int = 2,
        on_load: Callable[[str, float], None] | None = None,
    ) -> None:
        self.budget = budget
        self._load = load
        self._on_load = on_load
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="expert-load")
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()
        self._bytes = self._lookups = self._hits = self._evictions = 0

    @property
    def stats(self) -> CacheStats:
        """Counters, consistent with each other."""
        with self._lock:
            return CacheStats(
                self._lookups, self._hits, self._evictions, self._bytes, len(self._slots)
            )

    @contextmanager
    def pin(self, ids: Sequence[str]) -> Generator[Lease]:
        """Load what is missing, wait for it, and keep all of it in memory inside the context."""
        lease = self._lease(*self._reserve(ids))
        try:
            yield lease
        finally:
            lease.release()

    async def acquire(self, ids: Sequence[str]) -> Lease:
        """As `pin`, without blocking the event loop; the caller releases the lease."""
        slots, held = self._reserve(ids)
        waits = [asyncio.wrap_future(slot.future) for slot in slots]
        try:
            await asyncio.gather(*waits, return_exceptions=True)
        except asyncio.CancelledError:
            self._unpin(slots)
            raise
        return self._lease(slots, held)

    def drop(self, id: str) -> None:
        """Forget an expert, all its versions; memory is freed with the last lease on them."""
        with self._lock:
            for slot in [s for s in self._slots.values() if id in (s.id, parse_reference(s.id)[0])]:
                del self._slots[slot.id]
                slot.dropped = True
                self._settle(slot)

    def close(self) -> None:
        """Finish the loads under way and stop the threads."""
        self._pool.shutdown()

    def _reserve(self, ids: Sequence[str]) -> tuple[list[_Slot], frozenset[str]]:
        """Pin a slot for every id, start the loads that nobody has started, note what is held."""
        slots: list[_Slot] = []
        missing: list[_Slot] = []
        held: list[str] = []
        with self._lock:
            for id in dict.fromkeys(ids):
                slot = self._slots.get(id)
                if slot is None:
                    slot = self._slots[id] = _Slot(id)
                    missing.append(slot)
                if slot.future.done():
                    held.append(id)
                slot.pins += 1
                self._slots.move_to_end(id)
                slots.append(slot)
            self._lookups += len(slots)
            self._hits += len(held)
        for slot in missing:
            work = self._pool.submit(self._timed_load, slot.id)
            work.add_done_callback(partial(self._fill, slot))
        return slots, frozenset(held)

    def _lease(self, slots: Sequence[_Slot], held: frozenset[str]) -> Lease:
        """Wait for reserved slots; a load that failed in an unforeseen way is raised here."""
        experts: dict[str, ExpertWeights] = {}
        failed: dict[str, ExpertError] = {}
        complete = False
        try:
            for slot in slots:
                try:
                    experts[slot.id] = slot.future.result()
                except ExpertError as error:
                    failed[slot.id] = error
            complete = True
        finally:
            if not complete:
                self._unpin(slots)
        return Lease(experts, failed, held, partial(self._unpin, slots))

    def _timed_load(self, id: str) -> ExpertWeights:
        started = time.perf_counter()
        expert = self._load(id)
        if self._on_load:
            self._on_load(id, time.perf_counter() - started)
        return expert

    def _fill(self, slot: _Slot, work: Future[ExpertWeights]) -> None:
        """Hand a finished load to all who wait for it."""
        error = work.exception()
        with self._lock:
            if error is not None:
                if self._slots.get(slot.id) is slot:
                    del self._slots[slot.id]
                slot.future.set_exception(error)
                return
            expert = work.result()
            slot.nbytes = expert.nbytes
            self._bytes += slot.nbytes
            slot.future.set_result(expert)
            self._settle(slot)
            self._evict()

    def _unpin(self, slots: Sequence[_Slot]) -> None:
        with self._lock:
            for slot in slots:
                slot.pins -= 1
                self._settle(slot)
            self._evict()

    def _settle(self, slot: _Slot) -> None:
        """Stop counting a dropped slot's bytes once nobody holds it."""
        if slot.dropped and not slot.pins:
            self._bytes -= slot.nbytes
            slot.nbytes = 0

    def _evict(self) -> None:
        """Make room, oldest first, among experts that are loaded and not pinned."""
        if self._bytes <= self.budget:
            return
        for id, slot in list(self._slots.items()):
            if not slot.pins and slot.future.done():
                del self._slots[id]
                self._bytes -= slot.nbytes
                self._evictions += 1
                if self._bytes <= self.budget:
                    return
