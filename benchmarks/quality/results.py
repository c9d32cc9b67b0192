"""From rows to cells: what a run needs, and what it found for every row.

A row whose expert is not made, or a task whose card lacks a wording, gives a `Gap` with the reason
in place of a cell; nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.quality.cells import Cell, Place, digest, read_cell
from benchmarks.quality.conditions import Condition, lacks
from benchmarks.quality.measure import Missing
from benchmarks.quality.parts import Held, Part
from benchmarks.quality.rows import (
    BestSingleRow,
    ExpertRow,
    Forced,
    OracleRow,
    PerTaskRow,
    RouterRow,
    Row,
    Way,
)
from benchmarks.quality.workbench import Bench
from experts.training.data import Task


@dataclass(frozen=True)
class Gap:
    """Why there is no figure."""

    reason: str


@dataclass(frozen=True)
class Questions:
    """What a run asks: tasks by part, and the conditions."""

    tasks: Mapping[Part, Sequence[Task]]
    conditions: tuple[Condition, ...]

    def __iter__(self) -> Iterator[tuple[Part, Task, Condition]]:
        """Every part, task and condition."""
        for part, tasks in self.tasks.items():
            for task in tasks:
                for condition in self.conditions:
                    yield part, task, condition


@dataclass(eq=False)
class Results:
    """The cells of a run, by their place, and how rows are made of them.

    Attributes:
        best: expert -> accuracy by task on the data set aside, for the best single one.
    """

    bench: Bench
    questions: Questions
    best: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cells: dict[Place, Cell] = field(default_factory=dict)

    def ways(self, row: Row, part: Part, task: Task) -> tuple[Way, ...] | Gap:
        """What a row asks the engine about a task."""
        bench = self.bench
        match row:
            case RouterRow():
                if row.way.preset not in bench.engine.presets:
                    return Gap(f"the server has no preset {row.way.preset!r}")
                return (row.way,)
            case BestSingleRow():
                chosen = self.single(task.name if part.held == "left" else None)
                return (Forced(chosen),) if chosen else Gap("no expert was measured aside")
            case OracleRow():
                return self._oracle(part, task)
            case ExpertRow() | PerTaskRow():
                id = row.expert if isinstance(row, ExpertRow) else f"{row.prefix}.{task.name}"
                if part.held == "left":
                    return Gap("made with the task that is left out")
                return (Forced(id),) if bench.has(id) else Gap(f"expert {id!r} is not made")

    def _oracle(self, part: Part, task: Task) -> tuple[Way, ...] | Gap:
        experts = self.bench.experts
        if part.held == "in":
            own = task.name in experts
            return (Forced(task.name),) if own else Gap(f"there is no expert {task.name!r}")
        return tuple(Forced(e) for e in experts if part.held == "out" or e != task.name)

    def single(self, left: str | None = None) -> str | None:
        """The expert that is best for all tasks together on the data set aside.

        Args:
            left: a task that is to be left out, with its expert.
        """
        means = {
            id: float(np.mean([v for task, v in by_task.items() if task != left]))
            for id, by_task in self.best.items()
            if id != left
        }
        return max(means, key=lambda id: means[id], default=None)

    def cell(self, row: Row, part: Part, task: Task, condition: Condition) -> Cell | Gap:
        """What a row answered; of several ways the best."""
        if reason := self._unasked(part, task, condition):
            return Gap(reason)
        ways = self.ways(row, part, task)
        if isinstance(ways, Gap):
            return ways
        found = [c for w in ways if (c := self.cells.get(Place(part, w, task.name, condition)))]
        if len(found) < len(ways):
            return Gap("it was not asked")
        return max(found, key=lambda cell: cell.accuracy)

    def _unasked(self, part: Part, task: Task, condition: Condition) -> str | None:
        """Why a task cannot be asked under a condition, whoever answers."""
        if not part.examples(task):
            return "it has no example of this part"
        return lacks(self.bench.cards.get(task.name), condition, task.labels)

    def part(self, held: Held) -> Part | None:
        """The part of this run of one sort, if it has one."""
        return next((p for p in self.questions.tasks if p.held == held), None)

    def collect(self, rows: Iterable[Row], again: Collection[str] = ()) -> list[Missing]:
        """Read what is kept of these rows; what has to be measured.

        Args:
            again: names of rows that are measured anew whatever is kept.
        """
        wanted: dict[Place, Task] = {}
        anew: dict[Place, Task] = {}
        for row in rows:
            for part, task, condition in self.questions:
                ways = self.ways(row, part, task)
                if self._unasked(part, task, condition) or isinstance(ways, Gap):
                    continue
                places = {Place(part, w, task.name, condition): task for w in ways}
                wanted |= places
                if row.name in again:
                    anew |= places
        for place in anew:
            self.cells.pop(place, None)
        missing = self.read({p: t for p, t in wanted.items() if p not in anew})
        return missing + [Missing(p, digest(p, self.bench, t), t) for p, t in anew.items()]

    def read(self, wanted: Mapping[Place, Task]) -> list[Missing]:
        """Read the cells of these places that are kept; the others."""
        missing: list[Missing] = []
        for place, task in wanted.items():
            if place in self.cells:
                continue
            key = digest(place, self.bench, task)
            if cell := read_cell(self.bench.places.cells, place, key):
                self.cells[place] = cell
            else:
                missing.append(Missing(place, key, task))
        return missing


def matrix_places(
    bench: Bench, part: Part, tasks: Sequence[Task], condition: Condition
) -> dict[Place, Task]:
    """Every expert on every task that has examples."""
    asked = [task for task in tasks if part.examples(task)]
    return {Place(part, Forced(id), t.name, condition): t for t in asked for id in bench.experts}


def matrix_of(cells: Mapping[Place, Cell]) -> dict[str, dict[str, float]]:
    """Accuracy by expert and task."""
    found: dict[str, dict[str, float]] = {}
    for place, cell in cells.items():
        if isinstance(place.way, Forced):
            found.setdefault(place.way.expert, {})[place.task] = cell.accuracy
    return found
