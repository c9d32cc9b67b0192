"""Timing that survives a noisy machine: cases take turns, and a ratio is taken within a turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Cases = Mapping[str, Callable[[], object]]


class Times:
    """Seconds of every case in every round."""

    def __init__(self, seconds: Mapping[str, list[float]]) -> None:
        self.seconds = seconds

    def median(self, name: str) -> float:
        """Median seconds of a case."""
        return median(self.seconds[name])

    def ratio(self, name: str, base: str) -> float:
        """Median over the rounds of one case's time by another's in the same round."""
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return median(a / b for a, b in pairs)


def take_turns(cases: Cases, rounds: int) -> Times:
    """Time each case once a round, after one round that does not count.

    Every round starts at another case, so that none always follows the same neighbour.
    """
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        cases[name]()
    for turn in range(rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            begun = time.perf_counter()
            cases[name]()
            seconds[name].append(time.perf_counter() - begun)
    return Times(seconds)
