"""What it costs that another expert than the task's own comes first: the same inputs, asked thrice.

Only of tasks that have an expert. Knows nothing of why a row chose as it did.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.quality.conditions import Condition
from benchmarks.quality.results import Gap
from benchmarks.quality.rows import BARE, ORACLE, Row
from benchmarks.quality.summary import Group, Summary


@dataclass(frozen=True)
class Misrouted:
    """Accuracy on the held-in inputs for which a row had another expert first.

    Attributes:
        count: so many inputs. routed: as the row answered. own: by the task's own expert. bare: by
            none.
    """

    count: int
    routed: float
    own: float
    bare: float


def misrouted(summary: Summary, row: Row | None, condition: Condition) -> Misrouted | Gap:
    """The figures of one row; inputs count alike, whatever their task."""
    group = Group("in")
    found = [summary.cells(r, group, condition) for r in (row, summary.row(ORACLE),
                                                          summary.row(BARE))]  # fmt: skip
    for cells in found:
        if isinstance(cells, Gap):
            return cells
    ours, own, bare = ([cell.right_N for cell in cells] for cells in found)
    tasks = summary.tasks(group)
    wrong = np.concatenate([c.own_N(t.name) for c, t in zip(found[0], tasks, strict=True)]) == 0
    if not wrong.any():
        return Gap("the own expert always came first")
    means = [float(np.concatenate(rights)[wrong].mean()) for rights in (ours, own, bare)]
    return Misrouted(int(wrong.sum()), *means)
