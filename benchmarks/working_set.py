"""More experts in use than memory holds: throughput by how many times more, and what a load costs.

Every question goes to one expert drawn by Zipf(1) over all of the library. A round compares that,
with the system's page cache emptied, with the same number of questions to a few experts that stay
in memory; either from empty tiers, or from tiers that hold the most popular experts, as they do
after a while.
"""

from __future__ import annotations

import os
import random
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, at_least, reported
from benchmarks.many import name_of
from benchmarks.material import question, text
from experts.cache import ExpertCache
from experts.host import HostExpert
from experts.stacks import StackCache
from experts.tiers import Tier, Tiers
from experts.weights import ExpertWeights
from server.build import build_tiers
from server.engine.messages import Outcome, RoutingOptions, Sample
from server.engine.run import Engine

BATCH = 32
OVER, HALF = 10, 0.5
AT_ONCE = 64
CURVE = (2, 5, 10, 20)
"""Working set over budget, for the plot."""


@dataclass
class Case:
    """One size of the budgets.

    Attributes:
        over: how many times the working set is the device's budget. host: whether the host holds
            all of it; otherwise it holds as many experts as the device.
        cold: whether the tiers begin empty.
        ratios: throughput over that of traffic all in memory, per round.
        loads: seconds per tier, and read_mb: megabytes from the disk, in the last round.
    """

    over: float
    host: bool = False
    cold: bool = False
    ratios: list[float] = field(default_factory=list)
    loads: dict[Tier, list[float]] = field(default_factory=dict)
    read_mb: float = 0.0

    def loaded(self, tier: Tier, seconds: float) -> None:
        """Take note of one load; fits `on_load` of `Tiers`."""
        self.loads.setdefault(tier, []).append(seconds)


def measure(engine: Engine, count: int, quick: bool) -> list[Figure]:
    """The figures of a library of `count` experts, and those of the curve."""
    rounds, batches = (1, 3) if quick else (2, 20)
    curve = [Case(over, host) for host in (False, True) for over in CURVE]
    strict = Case(OVER, cold=True)
    for case in (strict, *curve):
        _measure(engine, case, count, rounds, batches)
    figures = [
        at_least(
            f"working set {OVER}x each budget, from cold / all hot, throughput",
            median(strict.ratios), HALF,
        ),
        *_loads(strict, "host", "from disk to the host"),
        *_loads(strict, "device", "from the host to the device"),
        reported("read from the disk meanwhile, MB", strict.read_mb),
        reported("resident MB", _resident_mb()),
    ]  # fmt: skip
    return figures + [reported(_name(c), median(c.ratios)) for c in curve]


def _name(case: Case) -> str:
    where = "all on the host" if case.host else "from disk"
    return f"throughput / all hot, working set {case.over:g}x the device, {where}"


def _loads(case: Case, tier: Tier, what: str) -> list[Figure]:
    seconds = sorted(case.loads[tier])
    return [
        reported(f"load {what}, p50 ms", median(seconds) * 1e3),
        reported(f"load {what}, p99 ms", seconds[int(len(seconds) * 0.99)] * 1e3),
    ]


def _measure(engine: Engine, case: Case, count: int, rounds: int, batches: int) -> None:
    room = max(BATCH, int(count / case.over))
    hot, mixed = zipf(room // 4), zipf(count)
    at = iter(range(10**9))

    def seconds(draw: Callable[[random.Random], int]) -> float:
        rng = random.Random(next(at))
        asked = [[forced(next(at), draw(rng)) for _ in range(BATCH)] for _ in range(batches)]
        begun = time.perf_counter()
        for samples in asked:
            answer(engine, samples)
        return time.perf_counter() - begun

    with _budgets(engine, case, room, count) as tiers:
        if case.host:
            _raise_all(tiers, count)
        for _ in range(rounds):
            _raise_all(tiers, room // 4)
            in_memory = seconds(hot)
            if case.cold:
                _empty(tiers.device)
                _empty(tiers.host)
            else:
                _raise_all(tiers, room)
            drop_page_cache([entry.path for entry in engine.library.entries.values()])
            case.loads.clear()
            before = _read_mb()
            case.ratios.append(in_memory / seconds(mixed))
            case.read_mb = _read_mb() - before


@contextmanager
def _budgets(engine: Engine, case: Case, room: int, count: int) -> Iterator[Tiers]:
    """The engine with tiers of these budgets, and no stacks from before."""
    before, stacks = engine.tiers, engine.stacks
    ref = engine.library.get(name_of(0)).ref
    with before.pin([ref]) as lease, before.host.pin([ref]) as stored:
        device, host = lease.experts[ref].nbytes, stored.experts[ref].nbytes
    engine.tiers = build_tiers(
        engine.library, engine.backbone, host * (count if case.host else room), device * room,
        case.loaded,
    )  # fmt: skip
    engine.stacks = StackCache(stacks.budget)
    try:
        yield engine.tiers
    finally:
        engine.tiers.close()
        engine.tiers, engine.stacks = before, stacks


def _raise_all(tiers: Tiers, count: int) -> None:
    """Bring the most popular experts to the device, the most popular last."""
    refs = [f"{name_of(index)}@1" for index in reversed(range(count))]
    for start in range(0, count, AT_ONCE):
        with tiers.pin(refs[start : start + AT_ONCE]):
            pass


def _empty(cache: ExpertCache[HostExpert] | ExpertCache[ExpertWeights]) -> None:
    budget, cache.budget = cache.budget, 0
    with cache.pin([f"{name_of(0)}@1"]):
        pass  # making room goes with use
    cache.budget = budget


def drop_page_cache(folders: Sequence[Path]) -> None:
    """Have the system forget the files in these folders: what reads them next reads the disk."""
    for folder in folders:
        for path in folder.iterdir():
            file = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)


def zipf(count: int) -> Callable[[random.Random], int]:
    """Draws an expert: the k-th most popular with probability proportional to 1 / k."""
    total = list(accumulate(1 / k for k in range(1, count + 1)))
    return lambda rng: bisect(total, rng.random() * total[-1])


def forced(index: int, expert: int) -> Sample:
    """Question number `index`, to one expert."""
    options = RoutingOptions(trace="none")
    return Sample(text(index), question(index), model=name_of(expert), options=options)


def answer(engine: Engine, samples: Sequence[Sample]) -> None:
    """Run a batch; a failure is raised."""
    for result in engine.run(samples):
        if not isinstance(result, Outcome):
            raise result


def _read_mb() -> float:
    """Megabytes that this process had the disk read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"]) / 1e6


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6
