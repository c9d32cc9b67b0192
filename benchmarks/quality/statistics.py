"""Intervals, calibration error and separation, of plain arrays. Knows nothing of rows or tasks.

Intervals are percentile bootstraps (Efron & Tibshirani 1993, chapter 13), stratified: examples are
drawn anew within each task, so that every task keeps its weight.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Array = NDArray[np.float64]
RESAMPLES = 1_000
BINS = 15
LEVEL = 0.95
HALVES = 100


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float


def resampled(value_N: Array, seed: str) -> Array:
    """(R,) means of R draws of N values with replacement; the same for the same seed."""
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    return value_N[rng.integers(0, len(value_N), (RESAMPLES, len(value_N)))].mean(axis=1)


def interval_of(mean: float, draw_R: Array) -> Interval:
    """The interval that these resampled means say."""
    low, high = np.quantile(draw_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high))


def mean_over_tasks(strata: Sequence[Array], seeds: Sequence[str]) -> Interval:
    """The mean of the tasks' means, examples resampled within tasks.

    Args:
        strata: one value per example, an array per task. seeds: one per task.

    Raises:
        ValueError: there is no task.
    """
    if not strata:
        raise ValueError("a mean needs at least one task")
    draws = [resampled(v, seed) for v, seed in zip(strata, seeds, strict=True)]
    return interval_of(float(np.mean([v.mean() for v in strata])), np.mean(draws, axis=0))


def chosen_by_half(right_EN: Array, seed: str) -> float:
    """What the best of E is worth that is chosen on half of N examples and scored on the others.

    The maximum over E on all N counts luck as skill; this does not. A mean over `HALVES` splits.

    Args:
        right_EN: 1.0 where one of E is right.
    """
    rng, N = np.random.default_rng(zlib.crc32(seed.encode())), right_EN.shape[1]
    scores: list[float] = []
    for _ in range(HALVES):
        order_N = rng.permutation(N)
        chosen = right_EN[:, order_N[: N // 2]].mean(axis=1).argmax()
        scores.append(float(right_EN[chosen, order_N[N // 2 :]].mean()))
    return float(np.mean(scores))


def half_and_half(first: Array, second: Array) -> Array:
    """Weights (N+M,) by which two groups count the same, whatever their sizes; their sum is 1."""
    return np.concatenate([np.full(len(g), 0.5 / len(g)) for g in (first, second)])


def calibration_error(
    confidence_N: Array, right_N: Array, weight_N: Array | None = None, bins: int = BINS
) -> float:
    """Expected calibration error over bins of equal mass (Nguyen & O'Connor 2015).

    Equal confidences share their mean outcome, so the order of examples does not matter.

    Args:
        weight_N: how much each example counts; None for all alike.
    """
    N = len(confidence_N)
    weight_N = np.full(N, 1 / N) if weight_N is None else weight_N / weight_N.sum()
    level_V, at_N = np.unique(confidence_N, return_inverse=True)
    mass_V = np.bincount(at_N, weight_N)
    right_V = np.bincount(at_N, weight_N * right_N) / mass_V
    edge_V = np.concatenate([[0.0], np.cumsum(mass_V)])
    total = 0.0
    for b in range(bins):
        # A level of much mass lies in several bins, with a share of its mass in each.
        share_V = np.clip(edge_V[1:], b / bins, (b + 1) / bins) - np.clip(
            edge_V[:-1], b / bins, (b + 1) / bins
        )
        total += abs(float((share_V * (level_V - right_V)).sum()))
    return total


def reliability(
    confidence_N: Array, right_N: Array, weight_N: Array, bins: int = BINS
) -> list[tuple[float, float]]:
    """(mean confidence, share right) of bins of about equal mass, for a picture."""
    order = np.argsort(confidence_N, kind="stable")
    place_N = np.cumsum(weight_N[order]) - weight_N[order] / 2
    bin_N = np.minimum((place_N / weight_N.sum() * bins).astype(int), bins - 1)
    points: list[tuple[float, float]] = []
    for b in np.unique(bin_N):
        at = order[bin_N == b]
        w = weight_N[at] / weight_N[at].sum()
        points.append((float(w @ confidence_N[at]), float(w @ right_N[at])))
    return points


def separation(inside_N: Array, outside_M: Array) -> float:
    """AUROC: the chance that a confidence of the first group is above one of the second."""
    truth = np.concatenate([np.ones(len(inside_N)), np.zeros(len(outside_M))])
    return float(roc_auc_score(truth, np.concatenate([inside_N, outside_M])))
