"""A run from beginning to end: what is asked, what is measured anew, and what comes of it.

Order: the best single expert is chosen on the data set aside, then all cells that are missing are
measured, then ablations and the curve of accuracy against K on the data set aside, then time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.held_out import note_run
from benchmarks.quality.conditions import CONDITIONS, Condition
from benchmarks.quality.measure import Missing, count, measure
from benchmarks.quality.parts import Held, Part, QualityError, parts_of
from benchmarks.quality.results import Questions, Results, matrix_of, matrix_places
from benchmarks.quality.rows import (
    ABLATIONS,
    BARE,
    COMPARISON,
    CURVE,
    DEFAULT_ROW,
    BestSingleRow,
    Row,
)
from benchmarks.quality.summary import Summary
from benchmarks.quality.timing import time_rows, turns
from benchmarks.quality.workbench import Bench

SINGLE = Part("in", aside=True, limit=60)
"""Where the best single expert is chosen."""
ASIDE_LIMIT = 60
CURVE_CONDITIONS: tuple[Condition, ...] = ("input", "reworded")

notes = Console(stderr=True)


@dataclass(frozen=True)
class Order:
    """What a run is asked for.

    Attributes:
        held: which parts. aside: see `Part`. limit: examples per task. timed: also measure time
            per input. studies: also measure variants of the default, and accuracy against K.
    """

    rows: tuple[Row, ...]
    conditions: tuple[Condition, ...] = CONDITIONS
    held: tuple[Held, ...] = ("in", "out")
    aside: bool = False
    limit: int | None = None
    timed: bool = True
    studies: bool = True
    again: frozenset[str] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether this is what the documents report: all rows on test files, and all of them."""
        whole = set(self.held) == {"in", "out"} and set(self.conditions) == set(CONDITIONS)
        return whole and not self.aside and self.limit is None and self.rows == COMPARISON


@dataclass(eq=False)
class Found:
    """What a run found.

    Attributes:
        milliseconds: per input, by row. curve: the rows of accuracy against K, and their cells.
        ablations: variants of the default, and itself. measured: questions that were asked anew.
    """

    order: Order
    summary: Summary
    milliseconds: dict[str, float] = field(default_factory=dict)
    curve: Summary | None = None
    ablations: Summary | None = None
    measured: int = 0


def run(bench: Bench, order: Order) -> Found:
    """Measure what is missing for an order; see `Found`.

    Raises:
        QualityError: the data has not what is asked for.
    """
    data = bench.places.data
    parts = parts_of(order.held, aside=order.aside, limit=order.limit)
    questions = Questions({p: p.tasks(data) for p in parts}, order.conditions)
    results = Results(bench, questions)
    asked = 0
    if any(isinstance(row, BestSingleRow) for row in order.rows):
        asked += _choose_single(results)
    missing = results.collect(order.rows, again=order.again)
    if held_out := sum(m.place.part.held == "out" for m in missing):
        note_run(
            bench.places.held_out_log, rows=[row.name for row in order.rows],
            conditions=order.conditions, limit=order.limit, cells=held_out,
        )  # fmt: skip
    asked += _measure(results, missing, "comparison")
    found = Found(order, Summary(results, order.rows), measured=asked)
    if order.studies:
        ours = [row for row in COMPARISON if row.name in (BARE, DEFAULT_ROW)]
        rows = (*ours, *ABLATIONS)
        found.ablations, more = _aside(bench, rows, CONDITIONS, "ablations")
        found.measured += more
        found.curve, more = _aside(bench, CURVE, CURVE_CONDITIONS, "accuracy against K")
        found.measured += more
    if order.timed:
        tasks = Part("in").tasks(data)
        with _bar("time per input", turns(order.rows)) as told:
            found.milliseconds = time_rows(results, order.rows, tasks, lambda: told(1))
    return found


def _choose_single(results: Results) -> int:
    """Every expert on every task's data set aside, for `Results.single`."""
    bench = results.bench
    tasks = [t for t in SINGLE.tasks(bench.places.data) if t.name in bench.experts]
    places = matrix_places(bench, SINGLE, tasks, "choices")
    asked = _measure(results, results.read(places), "best single expert")
    results.best = matrix_of({p: results.cells[p] for p in places})
    return asked


def _aside(
    bench: Bench, rows: Sequence[Row], conditions: tuple[Condition, ...], what: str
) -> tuple[Summary, int]:
    """Rows on the data set aside: who picks one of them by it has not seen a test file."""
    parts = parts_of(("in", "left"), aside=True, limit=ASIDE_LIMIT)
    tasks = {p: p.tasks(bench.places.data) for p in parts}
    results = Results(bench, Questions(tasks, conditions))
    asked = _measure(results, results.collect(rows), what)
    return Summary(results, rows), asked


def _measure(results: Results, missing: Sequence[Missing], what: str) -> int:
    """Measure cells and take them up; how many questions that asked."""
    total = count(missing)
    if total:
        with _bar(what, total) as told:
            measure(results.bench, missing, told)
    if left := results.read({m.place: m.task for m in missing}):
        raise QualityError(f"{len(left)} of {len(missing)} cells changed while being measured.")
    return total


@contextmanager
def _bar(what: str, total: int) -> Generator[Callable[[int], object]]:
    """A bar on stderr with the time that is left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=notes) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda done: bars.advance(bar, done)
