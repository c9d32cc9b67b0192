"""What a run found: final accuracy and forgetting by row, and what was to be reached. As JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.continual.plan import Plan
from benchmarks.continual.rows import APART, DAM, DEFAULT, PROMPTS, ROWS, SEQUENTIAL
from benchmarks.continual.run import cells_of, matrix
from benchmarks.figures import Figure, at_least
from experts.files import atomic_write

Matrix = Sequence[Sequence[float]]
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


def figures(plan: Plan) -> dict[str, object]:
    """Everything a run found, as JSON: by stream, kind and row, and against what was to be."""
    rows = {
        stream: {kind: {row.name: _row(plan, stream, kind, row.name) for row in plan.shown}
                 for kind in plan.kinds}
        for stream in plan.streams
    }  # fmt: skip
    told = {"examples": plan.examples, "epochs": plan.epochs, "seeds": plan.seeds,
            "asked": "set aside" if plan.aside else "test", "limit": plan.limit,
            "retention": plan.retention.model_dump()}  # fmt: skip
    return {
        "plan": told,
        "tasks": {stream: plan.order(stream) for stream in plan.streams},
        "rows": rows,
        "targets": [asdict(figure) for figure in targets(rows)],
        "gains": [asdict(gain) for gain in gains(rows)],
    }


def targets(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Figure]:
    """What Sailplane's default was to reach, on every stream and with every kind."""
    found: list[Figure] = []
    for stream, kinds in rows.items():
        for kind, by_row in kinds.items():
            if not {DEFAULT, DAM, PROMPTS, SEQUENTIAL} <= by_row.keys():
                continue
            where = f"{stream}, {kind}"
            ours = by_row[DEFAULT]
            for row, least in ((SEQUENTIAL, MARGIN), (PROMPTS, 0.01), (DAM, 0.01)):
                above = ours["final"] - by_row[row]["final"]
                title = ROWS[row].title
                found.append(at_least(f"{where}: points above {title}", above, least))
            least = LEAST_FORGETTING + 0.01
            found.append(at_least(f"{where}: forgetting, points", ours["forgetting"], least))
    return found


@dataclass(frozen=True)
class Gain:
    """What continual initialisation changes for one way to answer.

    Attributes:
        points: of final accuracy gained. forgetting: with it and without, where there is any.
    """

    stream: str
    kind: str
    row: str
    points: float
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
                    found.append(Gain(stream, kind, row, points, lost))
    return found


def _row(plan: Plan, stream: str, kind: str, name: str) -> dict[str, object]:
    """A row's figures: means over seeds, and each seed's matrix in percent."""
    settings = [s for s in plan.settings if (s.stream, s.kind) == (stream, kind)]
    found = [matrix(cells_of(plan, s), ROWS[name], plan.order(stream)) for s in settings]
    chosen = [matrix(cells_of(plan, s), ROWS[name], plan.order(stream), "own") for s in settings]
    row: dict[str, object] = {"title": ROWS[name].title, "final": _mean([final(m) for m in found])}
    if ROWS[name].forgets:
        row["forgetting"] = _mean([forgetting(m) for m in found])
        row["own expert first"] = _mean([final(m) for m in chosen])
    row["steps"] = [_mean(values) for values in zip(*map(steps, found), strict=True)]
    row["seeds"] = [
        {"seed": s.seed, "final": _mean([final(m)]), "forgetting": _mean([forgetting(m)]),
         "matrix": [[round(100 * a, DIGITS) for a in line] for line in m]}
        for s, m in zip(settings, found, strict=True)
    ]  # fmt: skip
    return row


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), DIGITS)
