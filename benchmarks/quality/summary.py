"""From cells to the figures of the tables: means with intervals, by row, condition and group.

A group is a set of tasks. A figure over a group needs every task of it: one gap is the figure's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.quality.cells import Cell
from benchmarks.quality.conditions import Condition
from benchmarks.quality.parts import Held, is_bbh
from benchmarks.quality.results import Gap, Results
from benchmarks.quality.rows import BARE, DEFAULT_ROW, Row, chooses
from benchmarks.quality.statistics import (
    Array,
    Interval,
    calibration_error,
    half_and_half,
    interval_of,
    mean_over_tasks,
    resampled,
    separation,
)
from experts.training.data import Task


@dataclass(frozen=True)
class Group:
    """A set of tasks of one part; `bbh` says which of the held-out ones."""

    held: Held
    bbh: bool | None = None

    @property
    def title(self) -> str:
        """As a column's head."""
        title = {"in": "held in", "out": "held out", "left": "left out"}[self.held]
        return title + {None: "", True: ", BBH", False: ", others"}[self.bbh]

    def holds(self, task: str) -> bool:
        """Whether a task of the part is in it."""
        return self.bbh is None or self.bbh == is_bbh(task)


GROUPS = (
    Group("in"),
    Group("out"),
    Group("out", bbh=True),
    Group("out", bbh=False),
    Group("left"),
)


@dataclass(eq=False)
class Summary:
    """Figures of a run over its rows."""

    results: Results
    rows: Sequence[Row]

    def row(self, name: str) -> Row | None:
        """A row of this run by its name."""
        return next((row for row in self.rows if row.name == name), None)

    @cached_property
    def groups(self) -> list[Group]:
        """Groups that this run has tasks of."""
        return [g for g in GROUPS if self.tasks(g)]

    def tasks(self, group: Group) -> list[Task]:
        """The group's tasks in this run."""
        part = self.results.part(group.held)
        return (
            [t for t in self.results.questions.tasks[part] if group.holds(t.name)] if part else []
        )

    def cells(self, row: Row | None, group: Group, condition: Condition) -> list[Cell] | Gap:
        """A row's cells, a task each; the first gap where there is one."""
        part, found = self.results.part(group.held), list[Cell]()
        if row is None:
            return Gap("the row was not asked for")
        tasks = self.tasks(group)
        if part is None or not tasks:
            return Gap(f"no tasks {group.title} in this run")
        if condition not in self.results.questions.conditions:
            return Gap(f"{condition} was not asked")
        for task in tasks:
            cell = self.results.cell(row, part, task, condition)
            if isinstance(cell, Gap):
                return Gap(f"{task.name}: {cell.reason}" if len(tasks) > 1 else cell.reason)
            found.append(cell)
        return found

    def mean(self, row: Row | None, group: Group, condition: Condition) -> Interval | Gap:
        """Mean accuracy over the group's tasks."""
        cells = self.cells(row, group, condition)
        return (
            cells if isinstance(cells, Gap) else self._interval(group, [c.right_N for c in cells])
        )

    def unseen(self, row: Row | None, group: Group) -> float | Gap:
        """Mean accuracy under `instruction`, of the paraphrase that no fitting used alone."""
        cells = self.cells(row, group, "instruction")
        if isinstance(cells, Gap):
            return cells
        asked = [c.unseen for c in cells if len(c.unseen)]
        return float(np.mean([c.accuracy for c in asked])) if asked else Gap("too few examples")

    def first_is_own(self, row: Row, condition: Condition, *, unseen: bool = False) -> float | Gap:
        """Share of held-in examples for which the task's own expert had the most weight.

        Args:
            unseen: of the paraphrase that no fitting used alone.
        """
        cells, tasks = self.cells(row, Group("in"), condition), self.tasks(Group("in"))
        if isinstance(cells, Gap):
            return cells
        if not chooses(row):
            return Gap("it prefers no expert")
        asked = [(c.unseen if unseen else c, t.name) for c, t in zip(cells, tasks, strict=True)]
        shares = [c.own_N(name).mean() for c, name in asked if len(c)]
        return float(np.mean(shares)) if shares else Gap("too few examples")

    def experts_used(self, row: Row, group: Group, condition: Condition) -> float | Gap:
        """Mean number of experts that act on a token."""
        cells = self.cells(row, group, condition)
        return (
            cells if isinstance(cells, Gap) else float(np.mean([np.mean(c.experts) for c in cells]))
        )

    def paired(self, group: Group, condition: Condition) -> Iterator[tuple[str, Interval | Gap]]:
        """Per task, the default's gain over the bare backbone on the same examples."""
        part = self.results.part(group.held)
        default, bare = self.row(DEFAULT_ROW), self.row(BARE)
        for task in self.tasks(group):
            if part is None or default is None or bare is None:
                yield task.name, Gap("the default or the bare backbone was not asked")
                continue
            ours = self.results.cell(default, part, task, condition)
            base = self.results.cell(bare, part, task, condition)
            if isinstance(ours, Gap) or isinstance(base, Gap):
                yield task.name, ours if isinstance(ours, Gap) else base
                continue
            gain_N = ours.right_N - base.right_N
            draw_R = resampled(gain_N, f"{group.held}/{task.name}")
            yield task.name, interval_of(float(gain_N.mean()), draw_R)

    def confidence(self, outside: Group) -> Confidence | Gap:
        """How far the default's confidence on `input` is to be believed.

        Args:
            outside: the group of tasks without an expert: an answer there is always wrong.
        """
        default = self.row(DEFAULT_ROW)
        inside = self.cells(default, Group("in"), "input")
        other = self.cells(default, outside, "input")
        if isinstance(inside, Gap) or isinstance(other, Gap):
            return inside if isinstance(inside, Gap) else other
        names = [t.name for t in self.tasks(Group("in"))]
        own = [c.own_N(name) for c, name in zip(inside, names, strict=True)]
        return Confidence(
            np.concatenate([c.confidence_N for c in inside]), np.concatenate(own),
            np.concatenate([c.confidence_N for c in other]),
        )  # fmt: skip

    def answers(self, group: Group, condition: Condition) -> tuple[Array, Array] | Gap:
        """(N,) the default's answers' probabilities and (N,) whether they were right."""
        cells = self.cells(self.row(DEFAULT_ROW), group, condition)
        if isinstance(cells, Gap):
            return cells
        top_N = np.concatenate([np.asarray(c.top) for c in cells])
        return top_N, np.concatenate([c.right_N for c in cells])

    def _interval(self, group: Group, strata: Sequence[Array]) -> Interval:
        names = [f"{group.held}/{t.name}" for t in self.tasks(group)]
        return mean_over_tasks(strata, names)


@dataclass(frozen=True, eq=False)
class Confidence:
    """Confidences of examples whose task has an expert, whether it came first, and of others'."""

    inside_N: Array
    own_N: Array
    outside_M: Array

    @cached_property
    def pooled(self) -> tuple[Array, Array, Array]:
        """Confidence, outcome and weight of all examples, both groups counting half."""
        return (
            np.concatenate([self.inside_N, self.outside_M]),
            np.concatenate([self.own_N, np.zeros(len(self.outside_M))]),
            half_and_half(self.inside_N, self.outside_M),
        )

    @property
    def error(self) -> float:
        """Expected calibration error, pooled half and half."""
        return calibration_error(*self.pooled)

    @property
    def auroc(self) -> float:
        """How well confidence tells the two groups apart."""
        return separation(self.inside_N, self.outside_M)
