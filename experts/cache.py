"""Experts in one tier of memory: loaded once however many ask, evicted by least recent use.

A lease pins its experts; a pinned expert is never evicted, so the cache may go over its budget
for as long as the leases in force need more. Knows neither files nor requests, nor the other tier.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, Self, TypeVar

from experts.errors import ExpertError
from experts.exhaustion import as_exhausted
from experts.versions import parse_reference


class Sized(Protocol):
    """What a cache holds: an expert that knows its bytes."""

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        ...


Held = TypeVar("Held", bound=Sized)


@dataclass(frozen=True)
class CacheStats:
    """Counters since the start, the bytes and experts held now, and the budget of bytes.

    `failures` are loads that failed.
    """

    lookups: int
    hits: int
    evictions: int
    failures: int
    bytes: int
    experts: int
    budget: int


@dataclass(eq=False)
class _Slot(Generic[Held]):
    """One expert in the cache, or on its way in. `nbytes` is what it adds to the cache's bytes."""

    id: str
    future: Future[Held] = field(default_factory=Future)
    pins: int = 0
    nbytes: int = 0
    dropped: bool = False

    def __post_init__(self) -> None:
        # A running future cannot be cancelled: one waiter that leaves must not take it from others.
        self.future.set_running_or_notify_cancel()


class Lease(Generic[Held]):
    """Experts pinned, for one batch or for good. Release it when they are no longer needed.

    Attributes:
        held: the ids that were in memory already. experts, failed: once it was waited for, what
            could be loaded, by id, and why the others could not.
    """

    def __init__(
        self,
        slots: Sequence[_Slot[Held]],
        held: frozenset[str],
        unpin: Callable[[Sequence[_Slot[Held]]], None],
    ) -> None:
        self.held = held
        self.experts: dict[str, Held] = {}
        self.failed: dict[str, ExpertError] = {}
        self._slots, self._unpin = slots, unpin

    @property
    def hits(self) -> int:
        """How many were in memory."""
        return len(self.held)

    @property
    def misses(self) -> int:
        """How many were not."""
        return len(self._slots) - len(self.held)

    @property
    def ready(self) -> bool:
        """Whether no load is under way any more: `wait` would not wait."""
        return all(slot.future.done() for slot in self._slots)

    def wait(self) -> Self:
        """Wait for the loads under way.

        Raises:
            Exception: a load failed in an unforeseen way; nothing is pinned then.
        """
        try:
            for slot in self._slots:
                try:
                    self.experts[slot.id] = slot.future.result()
                except ExpertError as error:
                    self.failed[slot.id] = error
        except BaseException:
            self.release()
            raise
        return self

    def release(self) -> None:
        """Unpin; a second call does nothing."""
        slots, self._slots = self._slots, ()
        self._unpin(slots)


class ExpertCache(Generic[Held]):
    """An LRU cache by bytes.

    Args:
        load: makes an expert from its id; it may raise any `ExpertError`. budget: in bytes.
        workers: how many experts load at the same time.
        on_load: told the id and seconds of every load that succeeded.
    """

    def __init__(
        self,
        load: Callable[[str], Held],
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
        self._slots: OrderedDict[str, _Slot[Held]] = OrderedDict()
        self._bytes = self._lookups = self._hits = self._evictions = self._failures = 0

    @property
    def stats(self) -> CacheStats:
        """Counters, consistent with each other."""
        with self._lock:
            return CacheStats(
                self._lookups, self._hits, self._evictions, self._failures,
                self._bytes, len(self._slots), self.budget,
            )  # fmt: skip

    @property
    def has_room(self) -> bool:
        """Whether one more expert, as large as those here on average, stays within the budget."""
        with self._lock:
            return self._bytes + self._bytes // max(1, len(self._slots)) <= self.budget

    def holds(self, id: str) -> bool:
        """Whether an expert is in memory now."""
        with self._lock:
            slot = self._slots.get(id)
            return slot is not None and slot.future.done()

    def hold(self, ids: Sequence[str]) -> Lease[Held]:
        """Pin experts and begin to load what is missing; `wait` for it before use."""
        slots, missing, held = self._reserve(ids)
        self._start(missing)
        return Lease(slots, held, self._unpin)

    @contextmanager
    def pin(self, ids: Sequence[str]) -> Generator[Lease[Held]]:
        """Have experts in memory inside the context."""
        lease = self.hold(ids).wait()
        try:
            yield lease
        finally:
            lease.release()

    def prefetch(self, ids: Collection[str]) -> None:
        """Begin to load what is missing; who needs it soon finds it there, or on its way.

        It is held by nobody yet: where memory is short, it may be evicted before it is used.
        """
        with self._lock:
            missing = [_Slot[Held](id) for id in dict.fromkeys(ids) if id not in self._slots]
            self._slots.update({slot.id: slot for slot in missing})
        self._start(missing)

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

    def _reserve(
        self, ids: Sequence[str]
    ) -> tuple[list[_Slot[Held]], list[_Slot[Held]], frozenset[str]]:
        """Pin a slot for every id; those that nobody loads yet, and the ids that are held."""
        slots: list[_Slot[Held]] = []
        missing: list[_Slot[Held]] = []
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
        return slots, missing, frozenset(held)

    def _start(self, missing: Sequence[_Slot[Held]]) -> None:
        for slot in missing:
            try:
                work = self._pool.submit(self._timed_load, slot.id)
            except RuntimeError as error:  # no thread to load it: who waits must not wait for ever
                work = Future[Held]()
                work.set_exception(as_exhausted(error))
            work.add_done_callback(partial(self._fill, slot))

    def _timed_load(self, id: str) -> Held:
        started = time.perf_counter()
        expert = self._load(id)
        if self._on_load:
            self._on_load(id, time.perf_counter() - started)
        return expert

    def _fill(self, slot: _Slot[Held], work: Future[Held]) -> None:
        """Hand a finished load to all who wait for it."""
        error = work.exception()
        with self._lock:
            if error is not None:
                self._failures += 1
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

    def _unpin(self, slots: Sequence[_Slot[Held]]) -> None:
        with self._lock:
            for slot in slots:
                slot.pins -= 1
                self._settle(slot)
            self._evict()

    def _settle(self, slot: _Slot[Held]) -> None:
        """Stop counting a dropped slot's bytes once nobody holds it."""
        if slot.dropped and not slot.pins:
            self._bytes -= slot.nbytes
            slot.nbytes = 0

    def _evict(self) -> None:
        """Make room, oldest first, among experts that are loaded and not pinned."""
        gone: list[_Slot[Held]] = []
        excess = self._bytes - self.budget
        for slot in self._slots.values():
            if excess <= 0:
                break
            if not slot.pins and slot.future.done():
                gone.append(slot)
                excess -= slot.nbytes
        for slot in gone:
            del self._slots[slot.id]
            self._bytes -= slot.nbytes
        self._evictions += len(gone)
