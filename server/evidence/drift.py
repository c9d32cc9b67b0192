"""Drift: whether questions are still routed as the calibration's set-aside ones were.

Compared are questions of one sort (what the request router was given), of the default router, and
under the calibration that the reference belongs to; all others are left out and counted. PSI is the
population stability index: below 0.1 stable, up to 0.25 shifting, above that drifted, unless chance
alone gives that much.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from experts.errors import CorruptExpert
from routers.calibration import Calibration, Reference
from routers.presets import DEFAULT
from server.evidence.reader import Row
from server.evidence.record import SORTS

SHIFTING, DRIFTED = 0.1, 0.25
Z95 = 1.644854
"""One-sided 95%."""
FEWEST = 30
"""Questions below which nothing is said."""
Reading = Literal["too few", "stable", "shifting", "drifted"]


@dataclass(frozen=True)
class Shift:
    """How far shares moved from the reference's.

    Attributes:
        psi: the population stability index. chance: what it stays below in 19 of 20 logs of this
            size where nothing has changed. shares: now, and reference: then, by name.
    """

    psi: float
    chance: float
    reading: Reading
    shares: Mapping[str, float]
    reference: Mapping[str, float]


@dataclass(frozen=True)
class Drift:
    """One sort of question.

    Attributes:
        ks: the greatest distance of the two distributions of confidence, seen at the edges.
        tends: where the log's questions lie, by and large.
        edges, shares, reference: the confidence's bins, and the share of questions in each.
        experts: the mix of first experts.
    """

    sees: str
    count: int
    reference_count: int
    ks: float
    tends: Literal["lower", "higher"]
    edges: Sequence[float]
    confidence: Shift
    experts: Shift


@dataclass(frozen=True)
class Compared:
    """What was compared: `questions` of the log, by sort, and how many were left out."""

    calibration: str
    compared: int
    left_out: int
    drifts: Sequence[Drift]


def read_calibration(library: Path) -> Calibration | None:
    """The calibration of a library's folder, None where there is none. Reads no expert.

    Raises:
        CorruptExpert: it is not what `fit --calibrate` writes.
    """
    path = library / "calibration.json"
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CorruptExpert(f"{path} is not what `sailplane fit --calibrate` writes.") from error


def compare(rows: Sequence[Row], calibration: Calibration) -> Compared:
    """Each sort of question with the calibration's reference."""
    sorts: dict[str, list[Row]] = {}
    for row in rows:
        mine = row.router == DEFAULT and row.calibration == calibration.version
        if mine and row.confidence is not None and row.sees in calibration.reference:
            sorts.setdefault(row.sees, []).append(row)
    drifts = [_drift(s, sorts[s], calibration.reference[s]) for s in SORTS if s in sorts]
    compared = sum(drift.count for drift in drifts)
    return Compared(calibration.version, compared, len(rows) - compared, drifts)


def _drift(sees: str, rows: Sequence[Row], reference: Reference) -> Drift:
    found = Counter(reference.bin_of(row.confidence or 0.0) for row in rows)
    count = len(rows)
    shares = [found[i] / count for i in range(len(reference.shares))]
    names = bin_names(reference.edges)
    then = dict(zip(names, reference.shares, strict=True))
    now = dict(zip(names, shares, strict=True))
    mix = {id: n / count for id, n in Counter(row.first for row in rows).items()}
    sums = zip(accumulate(shares), accumulate(reference.shares), strict=True)
    gaps = [a - b for a, b in sums]
    return Drift(
        sees,
        count,
        reference.count,
        max(map(abs, gaps)),
        "lower" if sum(gaps) > 0 else "higher",
        reference.edges,
        shift(now, then, count, reference.count),
        shift(mix, reference.first, count, reference.count),
    )


def bin_names(edges: Sequence[float]) -> list[str]:
    """The bins between the edges, as text; an edge belongs to the bin that it begins."""
    return [f"< {edges[0]:.2f}", *(f">= {edge:.2f}" for edge in edges)] if edges else ["all"]


def shift(
    now: Mapping[str, float], then: Mapping[str, float], count: int, reference_count: int
) -> Shift:
    """How far shares moved, given how many questions each side is of."""
    names = list(dict.fromkeys([*then, *now]))
    psi = stability(
        [now.get(name, 0.0) for name in names], [then.get(name, 0.0) for name in names],
        count, reference_count,
    )  # fmt: skip
    chance = by_chance(len(names), count, reference_count)
    return Shift(
        psi,
        chance,
        reading(psi, chance, count),
        {name: now.get(name, 0.0) for name in names},
        {name: then.get(name, 0.0) for name in names},
    )


def stability(
    now: Sequence[float], then: Sequence[float], count: int, reference_count: int
) -> float:
    """The population stability index: sum of (now - then) * ln(now / then).

    An empty share counts as half a question, so that it is not infinite.
    """
    total = 0.0
    for a, b in zip(now, then, strict=True):
        a, b = max(a, 0.5 / count), max(b, 0.5 / reference_count)
        total += (a - b) * math.log(a / b)
    return total


def by_chance(bins: int, count: int, reference_count: int) -> float:
    """The 95% quantile of the index of two samples of one distribution.

    It is (1/n + 1/m) times a chi-square of bins - 1 degrees (Yurdakul 2018), whose quantile is by
    Wilson and Hilferty.
    """
    free = bins - 1
    if not free:
        return 0.0
    spread = 2 / (9 * free)
    chi_square = free * (1 - spread + Z95 * math.sqrt(spread)) ** 3
    return chi_square * (1 / count + 1 / reference_count)


def reading(psi: float, chance: float, count: int) -> Reading:
    """What the index says."""
    if count < FEWEST:
        return "too few"
    if psi < max(SHIFTING, chance):
        return "stable"
    return "shifting" if psi <= DRIFTED else "drifted"
