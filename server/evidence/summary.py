"""What a routing log shows: usage, co-selection, confidence, accuracy, faults, latency.

Pure functions over the reader's rows. What is compared with a calibration is `drift`'s.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from server.evidence.figures import Accuracy, accuracy, bin_of, mean, quantile
from server.evidence.reader import FeedbackCounts, Joined, Row

BUCKETS = 24
"""Stretches of time that confidence is shown for, at most."""
BINS = 10
"""Bins of confidence that accuracy is shown for."""
STEPS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 7 * 86400)
"""Lengths in seconds that a stretch of time may have."""
LATENCIES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True)
class Usage:
    """One expert: its answers, alone or mixed.

    Attributes:
        share: of all questions. mean_weight: in the answers it took part in. first: answers in
            which it had the most weight, and first_share: of all questions.
    """

    expert: str
    count: int
    share: float
    mean_weight: float
    first: int
    first_share: float


@dataclass(frozen=True)
class Pair:
    """Two experts selected for the same question; `share` is of all questions."""

    experts: tuple[str, str]
    count: int
    share: float


@dataclass(frozen=True)
class Stretch:
    """Confidence over a stretch of time: its 10%, 50% and 90% quantiles. `start` is in seconds."""

    start: float
    seconds: int
    count: int
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Judged:
    """Accuracy of the answers that one key names."""

    key: str
    questions: int
    accuracy: Accuracy


@dataclass(frozen=True)
class Span:
    """What the log holds."""

    files: int
    skipped: int
    questions: int
    begins: float | None
    ends: float | None
    feedback: FeedbackCounts


@dataclass(frozen=True)
class Summary:
    """All of it.

    Attributes:
        routers: questions by preset. libraries and calibrations: by generation or version.
        fallbacks: by code. replaced: times an expert could not be loaded, by id.
        latency_ms: quantiles over questions, of whole requests.
        by_router, by_expert (by the one with the most weight), by_confidence (routing confidence).
    """

    span: Span
    routers: Mapping[str, int]
    libraries: Mapping[str, int]
    calibrations: Mapping[str, int]
    usage: Sequence[Usage]
    pairs: Sequence[Pair]
    confidence: Sequence[Stretch]
    fallbacks: Mapping[str, int]
    replaced: Mapping[str, int]
    narrowed: int
    latency_ms: Mapping[str, float]
    mean_tokens: float | None
    by_router: Sequence[Judged]
    by_expert: Sequence[Judged]
    by_confidence: Sequence[Judged]


def summarise(log: Joined) -> Summary:
    """What a log shows."""
    rows = log.rows
    times = [row.time for row in rows]
    span = Span(
        log.files, log.skipped, len(rows), min(times, default=None), max(times, default=None),
        log.feedback,
    )  # fmt: skip
    return Summary(
        span=span,
        routers=_counts(row.router for row in rows),
        libraries=_counts(row.library for row in rows),
        calibrations=_counts(row.calibration or "none" for row in rows),
        usage=usage(rows),
        pairs=pairs(rows),
        confidence=over_time(rows),
        fallbacks=_counts(row.fallback for row in rows if row.fallback),
        replaced=_counts(id for row in rows for id in row.replaced),
        narrowed=sum(row.narrowed for row in rows),
        latency_ms=latencies(rows),
        mean_tokens=mean(row.tokens for row in rows),
        by_router=judged(rows, lambda row: row.router),
        by_expert=judged(rows, lambda row: row.first),
        by_confidence=judged(rows, confidence_bin, in_order=True),
    )


def _counts(keys: Iterable[str]) -> dict[str, int]:
    """How often each is there, most often first."""
    return dict(sorted(Counter(keys).items(), key=lambda item: (-item[1], item[0])))


def usage(rows: Sequence[Row]) -> list[Usage]:
    """Every expert that answered, most often first."""
    weights: defaultdict[str, list[float]] = defaultdict(list)
    first = Counter(row.first for row in rows)
    for row in rows:
        for expert, weight in row.experts:
            weights[expert].append(weight)
    found = [
        Usage(
            expert, len(own), len(own) / len(rows), math.fsum(own) / len(own), first[expert],
            first[expert] / len(rows),
        )
        for expert, own in weights.items()
    ]  # fmt: skip
    return sorted(found, key=lambda use: (-use.count, -use.first, use.expert))


def pairs(rows: Sequence[Row]) -> list[Pair]:
    """Pairs of experts that were selected together, most often first."""
    counts = Counter(
        pair for row in rows for pair in combinations(sorted({id for id, _ in row.experts}), 2)
    )
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Pair(pair, count, count / len(rows)) for pair, count in ranked]


def over_time(rows: Sequence[Row], buckets: int = BUCKETS) -> list[Stretch]:
    """Confidence over time, in stretches of one length; those without a question are left out."""
    known = [(row.time, row.confidence) for row in rows if row.confidence is not None]
    if not known:
        return []
    begin, end = min(t for t, _ in known), max(t for t, _ in known)
    step = next((s for s in STEPS if (end - begin) / s < buckets - 1), STEPS[-1])
    found: defaultdict[int, list[float]] = defaultdict(list)
    for time, confidence in known:
        found[math.floor(time / step)].append(confidence)
    return [
        Stretch(float(at * step), step, len(c), *(quantile(sorted(c), q) for q in (0.1, 0.5, 0.9)))
        for at, c in sorted(found.items())
    ]


def latencies(rows: Sequence[Row]) -> dict[str, float]:
    """Quantiles of the latency in milliseconds; nothing of nothing."""
    ordered = sorted(row.latency_ms for row in rows)
    return {name: quantile(ordered, q) for name, q in LATENCIES.items()} if ordered else {}


def judged(
    rows: Sequence[Row], key: Callable[[Row], str | None], *, in_order: bool = False
) -> list[Judged]:
    """Accuracy by key, the most questions first, or in the order of the keys.

    Nothing where no answer has feedback. Rows whose key is None are left out.
    """
    groups: defaultdict[str, list[bool | None]] = defaultdict(list)
    for row in rows:
        if (name := key(row)) is not None:
            groups[name].append(row.right)
    found = [Judged(name, len(own), accuracy(own)) for name, own in groups.items()]
    if not any(one.accuracy.judged for one in found):
        return []
    return sorted(found, key=lambda one: (0 if in_order else -one.questions, one.key))


def confidence_bin(row: Row) -> str | None:
    """The bin of a row's routing confidence, such as `0.9-1.0`."""
    if row.confidence is None:
        return None
    at = bin_of(row.confidence, BINS)
    return f"{at / BINS:.1f}-{(at + 1) / BINS:.1f}"
