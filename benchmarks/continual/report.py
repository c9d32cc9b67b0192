"""What a run found: final accuracy and forgetting by row, and what was to be reached. As JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.continual.records import Learnt, Matrix
from benchmarks.continual.rows import APART, DAM, DEFAULT, PROMPTS, ROWS, SEQUENTIAL
from benchmarks.figures import Figure, at_least
from experts.atomic import atomic_write

DIGITS = 2
MARGIN, LEAST_FORGETTING = 10.4, -2.3
"""DAM's own margin above sequential fine-tuning, and its forgetting (Cheng et al. 2024)."""


def steps(matrix: Matrix) -> list[float]:
    """Average accuracy over the tasks seen so far, after each step, in percent."""
    return [100 * sum(row) / len(row) for row in matrix]


def final(matrix: Matrix) -> float:
    """Average accuracy over all tasks after the last step, in percent."""
    return steps(matrix)[-1]


def forgetting(matrix: Matrix) -> float:
    """Mean over all tasks but the last of A_i(T) - A_i(i), in points; 0 for one task."""
    changes = [matrix[-1][i] - matrix[i][i] for i in range(len(matrix) - 1)]
    return 100 * sum(changes) / len(changes) if changes else 0.0


def write(found: Mapping[str, object], folder: Path) -> Path:
    """Write `continual.json`: what `figures` made."""
    path = folder / "continual.json"
    atomic_write(path, (json.dumps(found, indent=1) + "\n").encode())
    return path


def figures(learnt: Sequence[Learnt]) -> dict[str, Any]:
    """Everything that was found, as JSON: by stream, kind and row, and against what was to be.

    Args:
        learnt: settings of the same numbers, at least one.
    """
    rows: dict[str, dict[str, dict[str, object]]] = {}
    for one in learnt:
        same = [other for other in learnt if (other.stream, other.kind) == (one.stream, one.kind)]
        by_row = {n: _row(n, same) for n in ROWS if all(n in other.accuracy for other in same)}
        rows.setdefault(one.stream, {})[one.kind] = by_row
    return {
        "numbers": learnt[0].numbers.model_dump(),
        "commits": sorted({one.commit for one in learnt}),
        "settings": [f"{one.stream}-{one.kind}-{one.seed}" for one in learnt],
        "tasks": {one.stream: one.tasks for one in learnt},
        "rows": rows,
        "targets": [asdict(figure) for figure in targets(rows)],
        "gains": [asdict(gain) for gain in gains(rows)],
    }


@dataclass(frozen=True)
class Seeded(Figure):
    """A figure that is a mean over seeds, and each one's."""

    seeds: tuple[float, ...] = ()


def targets(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Seeded]:
    """What Sailplane's default was to reach, on every stream and with every kind."""
    found: list[Seeded] = []
    for stream, kinds in rows.items():
        for kind, by_row in kinds.items():
            if not {DEFAULT, DAM, PROMPTS, SEQUENTIAL} <= by_row.keys():
                continue
            where = f"{stream}, {kind}"
            ours = by_row[DEFAULT]
            for row, least in ((SEQUENTIAL, MARGIN), (PROMPTS, 0.01), (DAM, 0.01)):
                above = ours["final"] - by_row[row]["final"]
                figure = at_least(f"{where}: points above {ROWS[row].title}", above, least)
                found.append(Seeded(**asdict(figure), seeds=_apart(ours, by_row[row])))
            least = LEAST_FORGETTING + 0.01
            figure = at_least(f"{where}: forgetting, points", ours["forgetting"], least)
            each = tuple(seed["forgetting"] for seed in ours["seeds"])
            found.append(Seeded(**asdict(figure), seeds=each))
    return found


def _apart(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[float, ...]:
    """Points of final accuracy between two rows, seed by seed."""
    pairs = zip(ours["seeds"], theirs["seeds"], strict=True)
    return tuple(round(a["final"] - b["final"], DIGITS) for a, b in pairs)


@dataclass(frozen=True)
class Gain:
    """What continual initialisation changes for one way to answer.

    Attributes:
        points: of final accuracy gained; a mean over seeds. seeds: each one's.
        forgetting: with it and without, where there is any.
    """

    stream: str
    kind: str
    row: str
    points: float
    seeds: tuple[float, ...]
    forgetting: tuple[float | None, float | None]


def gains(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Gain]:
    """Every pair of rows that differ in nothing but where their experts start."""
    found: list[Gain] = []
    for stream, kinds in rows.items():
        for kind, by_row in kinds.items():
            for row, apart in APART.items():
                if {row, apart} <= by_row.keys():
                    ours, theirs = by_row[row], by_row[apart]
                    lost = ours.get("forgetting"), theirs.get("forgetting")
                    points = round(ours["final"] - theirs["final"], DIGITS)
                    found.append(Gain(stream, kind, row, points, _apart(ours, theirs), lost))
    return found


def _row(name: str, learnt: Sequence[Learnt]) -> dict[str, object]:
    """A row's figures: means over seeds, and each seed's matrix in percent."""
    found, chosen = [one.accuracy[name] for one in learnt], [one.own[name] for one in learnt]
    row: dict[str, object] = {"title": ROWS[name].title, "final": _mean([final(m) for m in found])}
    if ROWS[name].forgets:
        row["forgetting"] = _mean([forgetting(m) for m in found])
        row["own expert first"] = _mean([final(m) for m in chosen])
    row["steps"] = [_mean(values) for values in zip(*map(steps, found), strict=True)]
    row["seeds"] = [
        {"seed": one.seed, "final": _mean([final(m)]), "forgetting": _mean([forgetting(m)]),
         "matrix": [[round(100 * a, DIGITS) for a in line] for line in m]}
        for one, m in zip(learnt, found, strict=True)
    ]  # fmt: skip
    return row


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), DIGITS)
