"""What was measured: one cell is a way and a task, asked through the engine and kept.

All cells of a setting are one JSON file. Each has a digest of what it depends on, the code aside:
one with another digest counts as not there. Holds no text of any example.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.continual.rows import Row, Way
from experts.atomic import atomic_write
from experts.files import sha256_of
from experts.manifest import Record
from experts.scope import EVERYTHING, Scope
from experts.snapshot import Snapshot
from experts.training.data import Task, TaskFormatError
from routers.presets import Preset
from server.engine.messages import Outcome, Question, RoutingOptions, Sample
from server.engine.run import Engine
from server.evaluate import Asked, is_right, put

ROWS_OF_A_PASS = 64
FORMAT = 1


class Cell(Record):
    """How one way answered a task: of so many questions, right ones, and own experts chosen."""

    digest: str
    asked: int
    right: int
    own: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.asked


@dataclass(frozen=True)
class Questions:
    """What is asked of a task: its test file, or what was set aside; at most `limit` of it."""

    task: Task
    aside: bool
    limit: int | None

    @property
    def asked(self) -> list[Asked]:
        """The questions, the choices as the task has them.

        Raises:
            TaskFormatError: there are none.
        """
        examples = self.task.aside if self.aside else self.task.test
        if not examples:
            raise TaskFormatError(f"{self.task.folder} has no example to ask.")
        return [put(e, None, "input", random.Random(0), ()) for e in examples[: self.limit]]

    @property
    def held_out(self) -> bool:
        """Whether they are the test file of a task that other comparisons hold out."""
        return not self.aside and self.task.folder.parent.name == "held_out"

    @property
    def digest(self) -> str:
        """Names them."""
        file = "train.jsonl.gz" if self.aside else "test.jsonl.gz"
        return f"{sha256_of(self.task.folder / file)}/{self.limit}"


class Cells:
    """The kept cells of one setting, by way and task."""

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = json.loads(path.read_text("utf-8")) if path.exists() else {}
        self._cells = {name: Cell.model_validate(cell) for name, cell in stored.items()}

    def get(self, way: Way, task: str) -> Cell:
        """One that was measured."""
        return self._cells[_name(way, task)]

    def has(self, way: Way, task: str, digest: str) -> bool:
        """Whether it was measured as it would be now."""
        cell = self._cells.get(_name(way, task))
        return cell is not None and cell.digest == digest

    def put(self, found: Mapping[Way, Cell], task: str) -> None:
        """Keep several of one task."""
        self._cells |= {_name(way, task): cell for way, cell in found.items()}
        stored = {name: cell.model_dump() for name, cell in sorted(self._cells.items())}
        atomic_write(self._path, json.dumps(stored, indent=0).encode())


def ways_of(rows: Sequence[Row], order: Sequence[str]) -> Iterator[tuple[int, str, list[Way]]]:
    """For each task, the ways to ask that rows need, row by row: (task, row's name, ways)."""
    for task in range(len(order)):
        for row in rows:
            steps = range(task, len(order))
            yield task, row.name, list(dict.fromkeys(row.way(order, s, task) for s in steps))


def measure(
    engine: Engine, cells: Cells, questions: Sequence[Questions], rows: Sequence[Row],
    again: Collection[str], progress: Callable[[int, int, str], None],
    asks: Callable[[Questions], None] = lambda _: None,
) -> None:  # fmt: skip
    """Ask what is missing and keep it, a row and a task at a time.

    Args:
        again: rows to ask anew. progress: told (parts done, parts in all, what comes next).
        asks: told of questions before they are asked.
    """
    order = [q.task.name for q in questions]
    parts = list(ways_of(rows, order))
    for done, (place, row, ways) in enumerate(parts):
        progress(done, len(parts), f"{row} on {order[place]}")
        asking, task = questions[place], order[place]
        keys = {way: _digest(engine, way, asking) for way in ways}
        todo = [w for w in ways if row in again or not cells.has(w, task, keys[w])]
        if todo:
            asks(asking)
            cells.put(_ask(engine, todo, keys, asking), task)


def _ask(
    engine: Engine, ways: Sequence[Way], keys: Mapping[Way, str], questions: Questions
) -> dict[Way, Cell]:  # fmt: skip
    """All ways of a row in one batch: the engine shares passes of equal input and selection."""
    asked = sorted(questions.asked, key=lambda a: len(a.input))
    right, own = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
    step = max(1, ROWS_OF_A_PASS // len(ways))
    for start in range(0, len(asked), step):
        batch = [(way, a) for a in asked[start : start + step] for way in ways]
        results = engine.run([_sample(a, way) for way, a in batch])
        for (way, a), result in zip(batch, results, strict=True):
            right[way] += is_right(result, a)
            own[way] += _first(result) == questions.task.name
    return {w: Cell(digest=keys[w], asked=len(asked), right=right[w], own=own[w]) for w in ways}


def _sample(asked: Asked, way: Way) -> Sample:
    """Only the id of an expert that is forced may follow from the task."""
    options = RoutingOptions(router=way.preset, truncate=True, trace="none", sees="input")
    return Sample(
        asked.input,
        Question("choice", "", asked.choices),
        model=way.expert or "auto",
        options=options,
        scope=Scope(frozenset((way.tag,))) if way.tag else EVERYTHING,
    )


def _first(result: object) -> str | None:
    """The task of the expert of most weight."""
    assert isinstance(result, Outcome)
    ids = result.trace.selection.ids
    return ids[0].rpartition(".")[2] if ids else None


def _digest(engine: Engine, way: Way, questions: Questions) -> str:
    """All that a cell depends on, the code aside."""
    seen = engine.library.snapshot.within(Scope(frozenset((way.tag,))) if way.tag else EVERYTHING)
    who = (
        engine.library.get(way.expert).digest if way.expert
        else _knows(engine.presets[str(way.preset)], seen)
    )  # fmt: skip
    said = json.dumps([FORMAT, engine.backbone.fingerprint, who, questions.digest])
    return hashlib.blake2b(said.encode(), digest_size=12).hexdigest()


def _knows(preset: Preset, seen: Snapshot) -> list[object]:
    """What decides how a preset routes: experts, and constants where it goes by any."""
    constants = (seen.calibration or {}).get("version") if preset.is_calibrated else None
    return [repr(preset), [entry.digest for entry in seen.entries.values()], constants]


def _name(way: Way, task: str) -> str:
    return f"{way.name} | {task}"
