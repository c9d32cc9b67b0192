"""Where the default falls short and what bounds it, in sentences with numbers from the tables.

As with `findings`, the words are written by hand, and a number that was not made shows as `-`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.quality.cells import Cell, Place
from benchmarks.quality.conditions import CONDITIONS, Condition
from benchmarks.quality.findings import Numbers
from benchmarks.quality.results import Gap
from benchmarks.quality.rows import BARE, DAM, DEFAULT_ROW, ORACLE
from benchmarks.quality.run import ASIDE_LIMIT
from benchmarks.quality.statistics import chosen_by_half
from benchmarks.quality.summary import Group, Summary
from benchmarks.quality.targets import NO_LOSS, is_loss
from experts.training.data import Example

SUREST = 4
"""So many tasks are named of those on which confidence is highest without an expert."""


def shortfalls(numbers: Numbers, outside: Group) -> list[str]:
    """Paragraphs of Markdown.

    Args:
        outside: the tasks without an expert.
    """
    return [
        line for text in (_without(numbers, outside), _losing(numbers, outside),
                          _unsure(numbers.summary, outside))
        for line in (text, "")
    ]  # fmt: skip


def _without(n: Numbers, outside: Group) -> str:
    out = outside.held
    likeness = ", ".join(
        f"{title} {n.gain(row, BARE, out, 'choices')}"
        for row, title in (("retrieval", "retrieval"), ("knn", "kNN"), (DAM, "DAM"))
    )
    return (
        "**On tasks without an expert** the default is "
        f"{', '.join(f'{n.gain(DEFAULT_ROW, BARE, out, c)} ({c})' for c in CONDITIONS)} points "
        "from the bare backbone. The best expert for each task, chosen on the test itself, is "
        f"{n.gain(ORACLE, BARE, out, 'choices')} (choices), and chosen on one half of it and asked "
        f"the other {_by_halves(n.summary, outside, 'choices')}: that is the room, and likeness "
        f"does not find it. What chooses by likeness alone is {likeness} points from bare "
        "(choices), for the likest expert often hurts. Leaving a library task's own expert out "
        f"promises more, {n.effect(DEFAULT_ROW, BARE, 'left', 'choices')} (choices): its siblings "
        "are in the library. So calibration also tries libraries that lack the nearest expert too, "
        "and chooses how flat and how weak a mix is on both; the ablation *no hedging* says what "
        "that is worth."
    )


def _by_halves(summary: Summary, group: Group, condition: Condition) -> str:
    """Points over the bare backbone of the best expert per task, chosen on half the examples."""
    part, row = summary.results.part(group.held), summary.row(ORACLE)
    bare = summary.mean(summary.row(BARE), group, condition)
    if part is None or row is None or isinstance(bare, Gap):
        return "-"
    scores: list[float] = []
    for task in summary.tasks(group):
        ways = summary.results.ways(row, part, task)
        if isinstance(ways, Gap):
            return "-"
        places = [Place(part, way, task.name, condition) for way in ways]
        right_EN = np.stack([summary.results.cells[place].right_N for place in places])
        scores.append(chosen_by_half(right_EN, task.name))
    return f"{100 * (float(np.mean(scores)) - bare.mean):+.1f}"


def _losing(n: Numbers, outside: Group) -> str:
    found = list(losses(n.summary, outside))
    if not found:
        return "**Nowhere** is the default surely more than a point below no expert."
    return (
        "**Where an expert hurts.** The default is surely more than a point below no expert "
        f"(95% interval wholly below {NO_LOSS:g} point) on {'; '.join(found)}. In brackets stand "
        f"the experts that come first most often.{_set_aside(n)}"
    )


def _set_aside(n: Numbers) -> str:
    """What the data set aside says of own experts where the default surely loses on the test."""
    if n.ablations is None:
        return ""
    worse = _worse(n.summary, Group("in"))
    told: list[str] = []
    for task in (t for t in n.summary.tasks(Group("in")) if t.name in worse):
        own = n.summary.results.best.get(task.name, {}).get(task.name)
        bare = _cell(n.ablations, Group("in"), task.name, "choices", BARE)
        if own is not None and bare:
            shares = (f"{100 * _commonest(e):.0f}%" for e in (task.train, task.test))
            told.append(
                f"{task.name} by its own expert {100 * (own - bare.accuracy):+.1f} points (its "
                f"commonest label is {' of the train file and '.join(shares)} of the test file)"
            )
    if not told:
        return ""
    return (
        f" On the {ASIDE_LIMIT} examples set aside, from which a library could know: "
        f"{', '.join(told)}. Of tasks without an expert nothing is set aside."
    )


def _commonest(examples: Sequence[Example]) -> float:
    """The share of the answer that is right most often."""
    counted = Counter(e.options[e.answer] for e in examples)
    return counted.most_common(1)[0][1] / len(examples)


def losses(summary: Summary, outside: Group) -> Iterator[str]:
    """Tasks on which the default is surely worse than no expert: by how much, and by whom."""
    for group in (Group("in"), outside):
        for task, by_condition in _worse(summary, group).items():
            yield f"{task} ({_first(summary, group, task)}): {', '.join(by_condition)}"


def _worse(summary: Summary, group: Group) -> dict[str, list[str]]:
    """Tasks of a group with a sure loss; each one's points under the conditions that show it."""
    found: dict[str, list[str]] = {}
    for condition in CONDITIONS:
        for task, gain in summary.paired(group, condition):
            if not isinstance(gain, Gap) and is_loss(gain):
                found.setdefault(task, []).append(f"{100 * gain.mean:+.1f} {condition}")
    return found


def _unsure(summary: Summary, outside: Group) -> str:
    found = summary.confidence(outside)
    if isinstance(found, Gap):
        return f"**Confidence** was not measured: {found.reason}."
    means = {
        task.name: float(np.mean(cell.confidence_N))
        for task in summary.tasks(outside)
        if (cell := _cell(summary, outside, task.name, "input"))
    }
    surest = sorted(means, key=lambda task: -means[task])[:SUREST]
    told = ", ".join(
        f"{task} ({means[task]:.2f}; {_first(summary, outside, task)})" for task in surest
    )
    return (
        "**Telling a task that has an expert from one that has none** by the input alone: AUROC "
        f"{found.auroc:.3f}. Without an expert, mean confidence is highest on {told}: inputs that "
        "look like those of another task, whose expert comes first."
    )


def _first(summary: Summary, group: Group, task: str) -> str:
    """The expert that comes first most often, over all conditions."""
    cells = [_cell(summary, group, task, condition) for condition in CONDITIONS]
    counted = Counter(first for cell in cells if cell for first in cell.first)
    return str(counted.most_common(1)[0][0])


def _cell(
    summary: Summary, group: Group, name: str, condition: Condition, row_name: str = DEFAULT_ROW
) -> Cell | None:
    part, row = summary.results.part(group.held), summary.row(row_name)
    task = next(task for task in summary.tasks(group) if task.name == name)
    if part is None or row is None:
        return None
    found = summary.results.cell(row, part, task, condition)
    return found if isinstance(found, Cell) else None
