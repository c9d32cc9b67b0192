"""A simulation of replicas that batch what waits, behind a balancer, event by event.

Each replica has one core. Its event loop wakes up for what comes, reads requests and writes
answers. Its engine takes what waits, at most a batch, when one is done; an idle one is woken when
the loop has read all that came. Where both compute, each has half of the core. Experts that are not
in memory are loaded by the batch that needs them, the least recently used one goes.
Knows costs, arrivals and popularity; no text, no router, no network that fails.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from statistics import mean
from typing import Literal

from benchmarks.capacity.costs import Costs

Balancing = Literal["any", "fewer", "holder"]
"""To any replica; to the one of two with fewer requests; the same among those that hold the expert,
unless both have more than a batch to do."""
Next = Callable[[float, random.Random], float | None]
"""From a time to that of the next arrival which it brings about, if it does."""
SKIPPED = 1 / 3
"""The first part of a run is not counted: queues fill."""


@dataclass(frozen=True)
class Fleet:
    """Replicas, their library and their balancer.

    Attributes:
        held: experts that a replica has memory for. zipf: exponent of their popularity.
    """

    costs: Costs
    replicas: int = 1
    max_batch: int = 32
    experts: int = 18
    held: int = 18
    zipf: float = 1.0
    balancing: Balancing = "fewer"


@dataclass(frozen=True)
class Seen:
    """What came of it. Latencies in seconds, as clients see them."""

    rate: float
    latencies: Sequence[float]
    batch: float
    misses: float

    @property
    def mean(self) -> float:
        """Seconds."""
        return mean(self.latencies)

    def percentile(self, share: float) -> float:
        """Seconds within which that share was answered."""
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


@dataclass(eq=False, slots=True)
class _Request:
    arrived: float
    expert: int
    answered: bool = False


@dataclass(eq=False, slots=True)
class _Replica:
    """Two workers on one core, what waits for each, and experts in the order of use."""

    waiting: deque[_Request] = field(default_factory=deque)
    loop: deque[_Request] = field(default_factory=deque)
    loop_left: float = 0.0
    batch: list[_Request] = field(default_factory=list)
    batch_left: float = 0.0
    held: OrderedDict[int, None] = field(default_factory=OrderedDict)
    here: int = 0
    clock: float = 0.0
    version: int = 0

    def advance(self, now: float) -> None:
        """Compute until now: where both have work, each gets half."""
        done = (now - self.clock) / (2 if self.loop and self.batch else 1)
        self.loop_left -= done if self.loop else 0
        self.batch_left -= done if self.batch else 0
        self.clock = now

    def until(self) -> float | None:
        """When the next of the two is done, if nothing else comes; None while nothing is to do."""
        left = [self.loop_left] * bool(self.loop) + [self.batch_left] * bool(self.batch)
        return self.clock + max(0.0, min(left)) * len(left) if left else None


class _Run:
    """One run: a heap of arrivals and of times at which a replica is done with something."""

    def __init__(
        self, fleet: Fleet, seconds: float, seed: int, *,
        after_arrival: Next = lambda *_: None, after_answer: Next = lambda *_: None,
    ) -> None:  # fmt: skip
        self.fleet, self.seconds = fleet, seconds
        self.after_arrival, self.after_answer = after_arrival, after_answer
        self.rng = random.Random(seed)
        self.popularity = list(
            accumulate((i + 1) ** -fleet.zipf for i in range(max(1, fleet.experts)))
        )
        self.replicas = [_Replica() for _ in range(fleet.replicas)]
        self.holders: dict[int, list[_Replica]] = {}
        self.events: list[tuple[float, int, _Replica | None, int]] = []
        self.count = 0
        self.latencies: list[float] = []
        self.batches = self.samples = self.loads = 0
        for replica in self.replicas:
            self._fill(replica)

    def _fill(self, replica: _Replica) -> None:
        """Memory as requests leave it that come to any replica: the last that were asked for."""
        if self.fleet.experts <= self.fleet.held:
            replica.held.update(dict.fromkeys(range(self.fleet.experts)))
        while len(replica.held) < min(self.fleet.experts, self.fleet.held):
            replica.held.setdefault(self._asked_for())
        for expert in replica.held:
            self.holders.setdefault(expert, []).append(replica)

    def _asked_for(self) -> int:
        return bisect(self.popularity, self.rng.random() * self.popularity[-1])

    def run(self, arrivals: int = 1) -> Seen:
        """From so many arrivals until the time is over; what has not ended then is not counted."""
        for _ in range(arrivals):
            self._expect(0.0)
        while self.events and self.events[0][0] < self.seconds:
            now, _, replica, version = heapq.heappop(self.events)
            if replica is None:
                self._arrive(now)
            elif version == replica.version:
                replica.advance(now)
                self._done(replica, now)
        counted = self.seconds * (1 - SKIPPED)
        return Seen(
            len(self.latencies) / counted, sorted(self.latencies),
            self.samples / max(1, self.batches), self.loads / max(1, self.samples),
        )  # fmt: skip

    def _expect(self, when: float | None) -> None:
        if when is not None:
            self._push(when, None, 0)

    def _push(self, when: float, replica: _Replica | None, version: int) -> None:
        self.count += 1  # so that equal times are in order, and replicas are never compared
        heapq.heappush(self.events, (when, self.count, replica, version))

    def _arrive(self, now: float) -> None:
        expert = self._asked_for()
        request = _Request(now, expert)
        replica = self._chosen(expert)
        replica.here += 1
        replica.advance(now)
        self._to_loop(replica, [request])
        self._plan(replica)
        self._expect(self.after_arrival(now, self.rng))

    def _chosen(self, expert: int) -> _Replica:
        fleet = self.fleet
        if fleet.balancing == "holder" and (holders := self.holders.get(expert)):
            found = self._fewer(holders)
            if found.here <= fleet.max_batch:
                return found
        if fleet.balancing == "any":
            return self.rng.choice(self.replicas)
        return self._fewer(self.replicas)

    def _fewer(self, among: Sequence[_Replica]) -> _Replica:
        one, other = self.rng.choice(among), self.rng.choice(among)
        return one if one.here <= other.here else other

    def _to_loop(self, replica: _Replica, requests: Sequence[_Request]) -> None:
        idle = not replica.loop
        replica.loop.extend(requests)
        if idle:
            self._turn(replica, None)

    def _turn(self, replica: _Replica, before: bool | None) -> None:
        """Have the loop begin with what is next; it wakes up between reading and answering."""
        costs, wakes = self.fleet.costs, replica.loop[0].answered is not before
        replica.loop_left = costs.request / 2 + (costs.wake / 2 if wakes else 0.0)

    def _plan(self, replica: _Replica) -> None:
        """Wake an idle engine once the loop has read all, and say when something is done."""
        if not (replica.batch or replica.loop):
            self._begin(replica)
        replica.version += 1
        if (when := replica.until()) is not None:
            self._push(when, replica, replica.version)

    def _begin(self, replica: _Replica) -> None:
        size = min(len(replica.waiting), self.fleet.max_batch)
        if not size:
            return
        replica.batch = [replica.waiting.popleft() for _ in range(size)]
        loads = sum(self._load(replica, expert) for expert in {r.expert for r in replica.batch})
        replica.batch_left = self.fleet.costs.of_batch(size, loads)
        if replica.clock >= SKIPPED * self.seconds:
            self.batches, self.samples = self.batches + 1, self.samples + size
            self.loads += loads

    def _load(self, replica: _Replica, expert: int) -> bool:
        """Have an expert in memory; whether it was not there."""
        if expert in replica.held:
            replica.held.move_to_end(expert)
            return False
        replica.held[expert] = None
        self.holders.setdefault(expert, []).append(replica)
        if len(replica.held) > self.fleet.held:
            gone, _ = replica.held.popitem(last=False)
            self.holders[gone].remove(replica)
        return True

    def _done(self, replica: _Replica, now: float) -> None:
        tiny = 1e-12
        if replica.batch and replica.batch_left <= tiny:
            answers, replica.batch = replica.batch, []
            for request in answers:
                request.answered = True
            self._to_loop(replica, answers)
            self._begin(replica)
        elif replica.loop and replica.loop_left <= tiny:
            request = replica.loop.popleft()
            if replica.loop:
                self._turn(replica, request.answered)
            if request.answered:
                self._answer(replica, request, now)
            else:
                replica.waiting.append(request)
        self._plan(replica)

    def _answer(self, replica: _Replica, request: _Request, now: float) -> None:
        replica.here -= 1
        if now >= SKIPPED * self.seconds:
            self.latencies.append(now - request.arrived + self.fleet.costs.idle)
        self._expect(self.after_answer(now, self.rng))


def random_arrivals(fleet: Fleet, rate: float, seconds: float, seed: int = 0) -> Seen:
    """Requests that arrive at random, `rate` per second at all replicas together."""
    run = _Run(fleet, seconds, seed, after_arrival=lambda now, rng: now + rng.expovariate(rate))
    return run.run()


def given_arrivals(fleet: Fleet, arrivals: Sequence[float]) -> Seen:
    """Requests that arrive at these seconds; answers after the last one came are not counted."""
    first, *later = arrivals
    times = iter(later)

    def following(*_: object) -> float | None:
        return next((time - first for time in times), None)

    return _Run(fleet, later[-1] - first, 0, after_arrival=following).run()


def closed_loop(fleet: Fleet, connections: int, seconds: float, seed: int = 0) -> Seen:
    """Connections that ask again as soon as they are answered."""
    run = _Run(fleet, seconds, seed, after_answer=lambda now, _: now + fleet.costs.idle)
    return run.run(connections)
