"""Fill cells: ask the engine, many ways and all conditions of an input in one batch.

The engine shares a pass between samples of equal tokens and selection, so ways that choose the
same expert, and conditions that change nothing, cost one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from benchmarks.quality.cells import DIGITS, Cell, Place, write_cell
from benchmarks.quality.conditions import SEEN, Asking, Condition, ask
from benchmarks.quality.parts import Part
from benchmarks.quality.rows import Forced, Way
from benchmarks.quality.workbench import Bench
from experts.training.data import Task
from server.engine.messages import Outcome, Question, RoutingOptions, Sample
from server.engine.queue import Result

ROWS = 64
"""Inputs times ways in a batch: about as many rows as a pass has."""


@dataclass(frozen=True)
class Missing:
    """A cell to measure, and the digest it is kept with."""

    place: Place
    key: str
    task: Task


def sample_of(asking: Asking, way: Way) -> Sample:
    """What the engine is asked. Only a forced expert's id may follow from the task."""
    asked = asking.asked
    forced = isinstance(way, Forced)
    return Sample(
        asked.input,
        Question("choice", asked.instruction, asked.choices),
        model=way.expert if forced else "auto",
        options=RoutingOptions(
            router=None if forced else way.preset,
            top_k=None if forced else way.top_k,
            mode=None if forced else way.mode,
            truncate=True,
            trace="none",
            sees=SEEN[asking.condition],
        ),
    )


def measure(
    bench: Bench, missing: Sequence[Missing], told: Callable[[int], object] = lambda _: None
) -> None:
    """Measure and keep these cells; a run that is cut off has kept all but the last task's.

    Args:
        told: how many questions were answered since it was last called.
    """
    for group in _together(bench, missing):
        part, task = group[0].place.part, group[0].task
        asked = {
            c: ask(task.name, part.examples(task), bench.cards.get(task.name), c, bench.words)
            for c in dict.fromkeys(m.place.condition for m in group)
        }
        with _library(bench, part, task.name):
            cells = _cells(bench, group, asked, told)
        for one, cell in zip(group, cells, strict=True):
            write_cell(bench.places.cells, one.place, one.key, cell)


def _library(bench: Bench, part: Part, task: str) -> AbstractContextManager[None]:
    """Routers see what they should of the library."""
    if part.held != "left":
        return nullcontext()
    return bench.engine.routing.trying(bench.without(task))


def count(missing: Iterable[Missing]) -> int:
    """Questions that these cells ask."""
    return sum(len(m.place.part.examples(m.task)) for m in missing)


def _together(bench: Bench, missing: Sequence[Missing]) -> list[list[Missing]]:
    """Cells of one part and task whose rows of a pass are of one width."""
    groups: dict[tuple[str, str, str], list[Missing]] = {}
    for one in missing:
        width = _width(bench, one.place.way)
        groups.setdefault((width, one.place.part.name, one.task.name), []).append(one)
    return list(groups.values())


def _width(bench: Bench, way: Way) -> str:
    """Ways of one plain expert go together, others alone: the widest row sets a pass's cost.

    What was merged of many experts has the ranks of all of them.
    """
    if isinstance(way, Forced):
        return "" if way.expert in bench.experts else way.name
    if way.top_k == 1:
        return ""
    preset = bench.engine.presets[way.preset]
    return "" if preset.request is None or preset.experts == 1 else way.name


def _cells(
    bench: Bench, group: Sequence[Missing], asked: Mapping[Condition, Sequence[Asking]],
    told: Callable[[int], object],
) -> list[Cell]:  # fmt: skip
    """One cell per member of the group."""
    inputs = [a.asked.input for a in next(iter(asked.values()))]
    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
    found: list[dict[int, Result]] = [{} for _ in group]
    step = max(2, ROWS // len({m.place.way for m in group}))
    for start in range(0, len(order), step):
        wanted = [(g, i) for i in order[start : start + step] for g in range(len(group))]
        samples = [
            sample_of(asked[p.condition][i], p.way) for g, i in wanted for p in (group[g].place,)
        ]
        for (g, i), result in zip(wanted, bench.engine.run(samples), strict=True):
            found[g][i] = result
        told(len(samples))
    return [
        cell_of([found[g][i] for i in range(len(inputs))], asked[one.place.condition])
        for g, one in enumerate(group)
    ]


def cell_of(results: Sequence[Result], askings: Sequence[Asking]) -> Cell:
    """What is kept of these answers; an error is raised, not counted."""
    cell = Cell()
    for result, asking in zip(results, askings, strict=True):
        if not isinstance(result, Outcome):
            raise result
        assert result.answer is not None
        selection, confidence = result.trace.selection, result.trace.confidence
        heaviest = max(selection.experts, key=lambda e: e.weight, default=None)
        per_token = selection.top_k if selection.mode == "token" else len(selection.experts)
        cell.right.append(int(result.answer.best == asking.asked.answer))
        cell.first.append(heaviest.id if heaviest else None)
        cell.experts.append(min(per_token, len(selection.experts)))
        cell.confidence.append(None if confidence is None else round(confidence, DIGITS))
        cell.top.append(round(max(result.answer.probabilities, default=0.0), DIGITS))
        if asking.paraphrase is not None:
            cell.paraphrase.append(asking.paraphrase)
    return cell
