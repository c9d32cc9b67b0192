"""What answering costs one replica with one core, and the formula that follows from it.

Pure functions. Closed loops whose clients are all in one batch say all: there, the engine computes
while nobody reads or writes. Knows nothing of chance: for percentiles, see `fleet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from statistics import mean

import numpy as np

TOGETHER = 0.95
"""From this share on, a loop's clients are all in one batch."""
LOAD_SHARE = 0.7
"""Of what a replica can do, so much is asked of it: the rest is for bursts and for a lost one."""


@dataclass(frozen=True)
class Step:
    """What a load did to a server with one core.

    Attributes:
        connections: that ask again as soon as they are answered; 0 where arrivals are random.
        rate: answers per second. mean_ms, p50_ms, p99_ms: what their clients waited. batch: mean
            samples of one. engine: seconds that the engine took for a batch. cpu: seconds of CPU
            that the process spent per request. arrivals: seconds at which requests were sent, where
            that was at random.
    """

    connections: int
    rate: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    batch: float
    engine: float
    cpu: float
    arrivals: Sequence[float] = ()


@dataclass(frozen=True)
class Costs:
    """Seconds of one core.

    Attributes:
        request: to read one and to write its answer. batch: per batch, whatever is in it. sample:
            per sample in it. wake: of the event loop, half for all that it finds to read, half for
            all answers of a batch. score: per sample and expert of the library, beyond those that
            were there when `sample` was measured. load: per expert that is not in memory.
        idle: seconds per request in which nobody computes: sockets, and threads that wake up.
    """

    request: float
    batch: float
    sample: float
    wake: float = 0.0
    score: float = 0.0
    load: float = 0.0
    idle: float = 0.0

    def of_batch(self, samples: int, loads: int = 0) -> float:
        """Of a batch, of whose experts so many have to be loaded."""
        return self.batch + samples * self.sample + loads * self.load

    def per_request(self, misses: float = 0.0, batch: float = inf) -> float:
        """Of a request that arrives alone and is answered in a batch of so many on the mean."""
        shared = self.wake / 2 + self.batch
        return self.request + self.wake / 2 + self.sample + misses * self.load + shared / batch

    def at(self, speed: float) -> Costs:
        """The same on a machine so many times as fast."""
        return Costs(**{name: value / speed for name, value in asdict(self).items()})

    def beside(self, experts: int) -> Costs:
        """The same with so many experts more in the library."""
        return replace(self, sample=self.sample + experts * self.score)


def typical(rounds: Sequence[Sequence[Step]]) -> list[Step]:
    """Each step from the round in which its mean latency was the median one.

    A machine has slow minutes; of three rounds, one that met such a minute does not count.
    """
    return [
        sorted(step, key=lambda of_round: of_round.mean_ms)[len(step) // 2]
        for step in zip(*rounds, strict=True)
    ]


def fitted(steps: Sequence[Step], *, score: float = 0.0, load: float = 0.0) -> Costs:
    """The costs that closed loops have, from those whose clients are all in one batch.

    The engine takes `batch + n * sample` for n of them, and each costs `request + wake / n` beside
    it. Of larger loops, answers are written and requests are read while the engine computes, so
    that neither has a time of its own.
    """
    within = [step for step in steps if step.batch >= TOGETHER * step.connections]
    sizes = [step.batch for step in within]
    beside = [step.cpu - step.engine / step.batch for step in within]
    batch, sample = _line(sizes, [step.engine for step in within])
    request, wake = _line([1 / size for size in sizes], beside)
    if wake < 0:
        request, wake = mean(beside), 0.0
    alone = steps[0]
    return Costs(
        request=request,
        batch=batch,
        sample=sample,
        wake=wake,
        score=score,
        load=load,
        idle=max(0.0, alone.mean_ms / 1e3 - alone.cpu),
    )


def _line(at: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Value at 0 and slope of the line with the least relative squares."""
    slope, start = np.polyfit(at, values, 1, w=1 / np.asarray(values))
    return float(start), float(slope)


def replicas(
    rate: float, costs: Costs, *, misses: float = 0.0, load_share: float = LOAD_SHARE
) -> int:
    """How many replicas answer `rate` requests per second, of which each has `load_share`.

    Args:
        misses: experts to load per request; see `fleet` for what to expect.
    """
    return max(1, ceil(rate * costs.per_request(misses) / load_share))


def mean_seconds(rate: float, costs: Costs) -> float:
    """How long a request takes on the mean at a replica that gets `rate` per second; inf: for ever.

    Batches grow until they keep up: in the time of one with n samples, n more arrive, so its time
    is `(batch + wake / 2) / (1 - rate * per_request)`, and never less than that of one sample
    alone. A request waits for half of the batch that runs, then for its own.
    """
    free = 1 - rate * costs.per_request()
    if free <= 0:
        return inf
    alone = costs.per_request(batch=1)
    busy = min(1.0, rate * alone)
    own = max(alone, (costs.batch + costs.wake / 2) / free)
    return costs.idle + own + busy * own / 2
