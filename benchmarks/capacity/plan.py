"""From costs to tables: how far the simulation is off, and what more load and experts take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.capacity.costs import LOAD_SHARE, Costs, Step, mean_seconds, replicas
from benchmarks.capacity.fleet import (
    Balancing,
    Fleet,
    Seen,
    closed_loop,
    given_arrivals,
    random_arrivals,
)

SECONDS = 300.0
ENOUGH = 600_000
"""Requests of one simulation, at most."""
RATES = (20, 100, 1_000, 10_000, 100_000, 200_000)
LIBRARIES = (18, 1_000, 4_000, 10_000)
HELD = 1_000
"""Experts that the default memory holds, at 0.75 MB each."""
MANY = 10_000
"""Requests per second that libraries are compared at."""
ROUNDS = 3
"""Misses depend on replicas and replicas on misses; they settle in so many rounds."""


@dataclass(frozen=True)
class Compared:
    """A measured step beside the simulated one; latencies in milliseconds.

    Attributes:
        speed: of the machine in that step, by the CPU that its requests took; 1 in closed loops,
            whose throughput says the same. foretold_ms: the mean latency at speed 1.
    """

    step: Step
    rate: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    speed: float
    foretold_ms: float

    @property
    def rate_off(self) -> float:
        """Of the throughput, as a share."""
        return abs(self.rate / self.step.rate - 1)

    @property
    def p50_off(self) -> float:
        """Of the median latency, as a share."""
        return abs(self.p50_ms / self.step.p50_ms - 1)

    @property
    def p99_off(self) -> float:
        """Of what one in a hundred waits longer than, as a share."""
        return abs(self.p99_ms / self.step.p99_ms - 1)

    @property
    def mean_off(self) -> float:
        """Of the mean latency, as a share."""
        return abs(self.mean_ms / self.step.mean_ms - 1)

    @property
    def foretold_off(self) -> float:
        """The same at speed 1."""
        return abs(self.foretold_ms / self.step.mean_ms - 1)


def compared(costs: Costs, steps: Sequence[Step]) -> list[Compared]:
    """Each step as the simulation has it."""
    return [_compared(costs, step) for step in steps]


def _compared(costs: Costs, step: Step) -> Compared:
    if step.connections:
        seen = foretold = closed_loop(Fleet(costs), step.connections, SECONDS)
        speed = 1.0
    else:
        foretold = given_arrivals(Fleet(costs), step.arrivals)
        speed = costs.per_request(batch=step.batch) / step.cpu
        seen = given_arrivals(Fleet(costs.at(speed)), step.arrivals)
    return Compared(step, seen.rate, *_milliseconds(seen), speed, 1e3 * foretold.mean)


def _milliseconds(seen: Seen) -> tuple[float, float, float]:
    return 1e3 * seen.mean, 1e3 * seen.percentile(0.5), 1e3 * seen.percentile(0.99)


@dataclass(frozen=True)
class Planned:
    """So many replicas for a load, and what the simulation says of them."""

    rate: float
    experts: int
    balancing: Balancing
    replicas: int
    misses: float
    formula_ms: float
    mean_ms: float
    p50_ms: float
    p99_ms: float


def by_rate(costs: Costs, load_share: float = LOAD_SHARE) -> Iterator[Planned]:
    """More and more requests per second for one library that fits in memory."""
    for rate in RATES:
        count = replicas(rate, costs, load_share=load_share)
        yield _planned(Fleet(costs, count), rate, 0.0)


def by_experts(costs: Costs) -> Iterator[Planned]:
    """Larger and larger libraries, by who gets the request."""
    for experts in LIBRARIES:
        dear = costs.beside(experts - LIBRARIES[0])
        for balancing in ("fewer", "holder") if experts > HELD else ("fewer",):
            misses = 0.0
            fleet = Fleet(dear, experts=experts, held=HELD, balancing=balancing)
            for _ in range(ROUNDS):
                fleet = replace(fleet, replicas=replicas(MANY, dear, misses=misses))
                misses = random_arrivals(fleet, MANY, _seconds(MANY) / 4).misses
            yield _planned(fleet, MANY, misses)


def _planned(fleet: Fleet, rate: float, misses: float) -> Planned:
    seen = random_arrivals(fleet, rate, _seconds(rate), seed=1)
    each = 1e3 * mean_seconds(rate / fleet.replicas, fleet.costs)
    return Planned(
        rate, fleet.experts, fleet.balancing, fleet.replicas, misses, each, *_milliseconds(seen)
    )


def _seconds(rate: float) -> float:
    return min(SECONDS, ENOUGH / rate)
