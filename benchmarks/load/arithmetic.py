"""What the figures of a load test mean: pure functions over points, seconds and samples.

Knows no process and no file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.places import ROOT

sys.path.insert(0, str(ROOT / "deploy" / "load"))  # where locust finds it, too
import timeline

RISE = 1.03
"""A step up that brings less than this much more has found the top."""
CALM, CALM_SECONDS = 1.5, 3
"""Recovered: for so many seconds nothing was refused, and the median is below so many times what it
was before."""
QUEUED = ("/v1/decisions", "/v1/route", "/v1/embeddings")
"""How the names of requests begin that wait for the engine; what is refused at once says nothing
of what the server can do."""

Second = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One step of the search: so many users, and what came of them.

    Attributes:
        rate: right answers per second. queued: of requests that wait for the engine. samples: that
            the engine ran per second.
    """

    users: int
    rate: float
    queued: float
    samples: float
    p50_ms: float
    p99_ms: float
    failed: int


def levelled(points: Sequence[Point]) -> bool:
    """Whether the last two steps brought no more than the best before them."""
    if len(points) < 3:
        return False
    best = max(p.rate for p in points[:-2])
    return max(p.rate for p in points[-2:]) < RISE * best


def best(points: Sequence[Point]) -> Point:
    """The step with the most right answers per second."""
    return max(points, key=lambda p: p.rate)


def between(seconds: Iterable[Second], first: float, last: float) -> list[Second]:
    """The whole seconds from `first` to before `last`."""
    return [s for s in seconds if first <= s["second"] and s["second"] + 1 <= last]


def total(seconds: Iterable[Second], outcome: str) -> int:
    """How many requests ended so."""
    return sum(s[outcome] for s in seconds)


def queued(seconds: Iterable[Second], outcome: str = "answered") -> int:
    """The same, of those that wait for the engine."""
    ends = f"|{outcome}"
    return sum(
        count
        for second in seconds
        for name, count in second["names"].items()
        if name.startswith(QUEUED) and name.endswith(ends)
    )


def percentile(seconds: Iterable[Second], share: float, outcome: str = "answered") -> float:
    """A percentile of the latency of all that ended so, in milliseconds."""
    return timeline.percentile(timeline.merged(seconds, outcome), share)


def minute_tail(seconds: Sequence[Second], minute: int = 60) -> float:
    """p99 / p50 of each minute, their median: without the machine's slow and fast quarters.

    Of a shorter span the whole.
    """
    starts = range(0, max(1, len(seconds) - minute + 1), minute)
    minutes = [seconds[i : i + minute] for i in starts]
    return median(percentile(m, 0.99) / percentile(m, 0.5) for m in minutes)


def growth(values: Sequence[float]) -> float:
    """How much more the last tenth holds than the first, as a share; medians, for peaks pass."""
    tenth = max(1, len(values) // 10)
    return median(values[-tenth:]) / median(values[:tenth]) - 1


def recovery(seconds: Sequence[Second], ended: float, p50_before: float) -> float | None:
    """Seconds from `ended` until nothing is refused and the median is as it was; None: never."""
    calm = 0
    for second in seconds:
        if second["second"] < ended:
            continue
        p50 = percentile([second], 0.5)
        calm = calm + 1 if not second["refused"] and p50 <= CALM * p50_before else 0
        if calm == CALM_SECONDS:
            return max(0.0, second["second"] + 1 - CALM_SECONDS - ended)
    return None


def counted(readings: Sequence[Mapping[str, float]], name: str, first: float, last: float) -> float:
    """How much a counter rose per second between two times, by the readings inside them."""
    inside = [r for r in readings if first <= r["time"] <= last and name in r]
    if len(inside) < 2:
        return float("nan")
    span = inside[-1]["time"] - inside[0]["time"]
    return (inside[-1][name] - inside[0][name]) / span
