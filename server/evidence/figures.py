"""The few statistics that the log's figures are made of. Pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Z95 = 1.959964
"""Two-sided 95%."""


@dataclass(frozen=True)
class Accuracy:
    """How many of the answers with feedback were right; `low` and `high` are Wilson's 95%.

    `share`, `low` and `high` are None where there is no feedback.
    """

    judged: int
    right: int
    share: float | None
    low: float | None
    high: float | None


def accuracy(verdicts: Iterable[bool | None]) -> Accuracy:
    """The accuracy of answers; None stands for one without feedback."""
    known = [v for v in verdicts if v is not None]
    judged, right = len(known), sum(known)
    if not judged:
        return Accuracy(0, 0, None, None, None)
    low, high = wilson(right, judged)
    return Accuracy(judged, right, right / judged, low, high)


def wilson(right: int, count: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927): sound for few trials and near 0 and 1."""
    p = right / count
    scale = 1 + z * z / count
    centre = (p + z * z / (2 * count)) / scale
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / scale
    return (0.0 if not right else centre - half, 1.0 if right == count else centre + half)


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of ordered numbers, with linear interpolation between neighbours."""
    at = q * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def mean(values: Iterable[float]) -> float | None:
    """The mean, None of nothing."""
    known = list(values)
    return math.fsum(known) / len(known) if known else None


def bin_of(share: float, bins: int) -> int:
    """Which of `bins` equal bins of [0, 1] a number falls into; 1 belongs to the last."""
    return min(int(share * bins), bins - 1)


def calibration_error(answers: Iterable[tuple[float, bool]], bins: int = 10) -> float | None:
    """The expected calibration error (ECE) over equal bins of probability.

    Args:
        answers: the probability that an answer claimed, and whether it was right.

    Returns:
        The mean of |accuracy - mean probability|, bins weighted by their answers; None of nothing.
    """
    binned: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    count = 0
    for probability, right in answers:
        binned[bin_of(probability, bins)].append((probability, right))
        count += 1
    gaps = (abs(math.fsum(p - right for p, right in one)) for one in binned)
    return math.fsum(gaps) / count if count else None
