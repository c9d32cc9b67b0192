"""Where an expert is: on disk, on the host in its file's numbers, on the device ready to compute.

Two caches, one behind the other, each with a budget of bytes; on a CPU both are in main memory.
What the device lets go of, the host often still has: that costs one cast instead of a read and
every check. Knows no requests, and not where files lie.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal

import torch

from experts.cache import CacheStats, ExpertCache, Lease
from experts.errors import ExpertError
from experts.host import HostExpert
from experts.weights import ExpertWeights

Tier = Literal["device", "host", "disk"]
WORKERS = 4
"""Loads at the same time: a disk far away answers several as fast as one."""


class Tiers:
    """Experts by reference (`id@version`), loaded through the tiers.

    Args:
        read: an expert from disk, by reference; it may raise any `ExpertError`.
        dtype, device: of what computes. host_bytes, device_bytes: the budgets.
        on_load: told where an expert came to ("host" or "device") and the seconds of that step.
    """

    def __init__(
        self,
        read: Callable[[str], HostExpert],
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        host_bytes: int,
        device_bytes: int,
        on_load: Callable[[Tier, float], None] | None = None,
    ) -> None:
        self._dtype, self._place = dtype, device
        self._on_load = on_load or (lambda tier, seconds: None)
        self.host: ExpertCache[HostExpert] = ExpertCache(
            read, host_bytes, workers=WORKERS,
            on_load=lambda _, seconds: self._on_load("host", seconds),
        )  # fmt: skip
        self.device: ExpertCache[ExpertWeights] = ExpertCache(
            self._promote, device_bytes, workers=WORKERS
        )
        self._kept: Lease[ExpertWeights] | None = None

    @property
    def stats(self) -> Mapping[Tier, CacheStats]:
        """What each tier counts."""
        return {"device": self.device.stats, "host": self.host.stats}

    def pin(self, refs: Sequence[str]) -> AbstractContextManager[Lease[ExpertWeights]]:
        """Have experts on the device inside the context."""
        return self.device.pin(refs)

    def hold(self, refs: Sequence[str]) -> Lease[ExpertWeights]:
        """Begin to bring experts to the device, for whoever waits for the lease."""
        return self.device.hold(refs)

    def prefetch(self, refs: Collection[str]) -> None:
        """Begin to bring experts to the device, for whoever comes; see `ExpertCache.prefetch`."""
        self.device.prefetch(refs)

    def where(self, ref: str) -> Tier:
        """The nearest tier that holds an expert now."""
        return "device" if self.device.holds(ref) else "host" if self.host.holds(ref) else "disk"

    def keep(self, refs: Sequence[str]) -> Mapping[str, ExpertError]:
        """Hold these experts on the device for good, and let go of those kept before.

        Returns:
            Why some of them could not be loaded.
        """
        before, self._kept = self._kept, self.hold(refs).wait()
        if before:
            before.release()
        return self._kept.failed

    def preload(self, refs: Iterable[str]) -> int:
        """Load experts in this order, until neither tier has room for one more.

        Returns:
            How many were loaded. One that cannot be loaded is passed by.
        """
        loaded = 0
        for ref in refs:
            cache = next((c for c in (self.device, self.host) if c.has_room), None)
            if cache is None:
                break
            with cache.pin([ref]) as lease:
                loaded += len(lease.experts)
        return loaded

    def drop(self, id: str) -> None:
        """Forget an expert, all its versions; memory is freed with the last lease on them."""
        self.host.drop(id)
        self.device.drop(id)

    def close(self) -> None:
        """Finish the loads under way and stop the threads."""
        self.device.close()
        self.host.close()

    def _promote(self, ref: str) -> ExpertWeights:
        """From the host to the device; a read from disk comes first where the host has it not."""
        with self.host.pin([ref]) as lease:
            if ref in lease.failed:
                raise lease.failed[ref]
            begun = time.perf_counter()
            expert = lease.experts[ref].materialise(self._dtype, self._place)
        self._on_load("device", time.perf_counter() - begun)
        return expert
