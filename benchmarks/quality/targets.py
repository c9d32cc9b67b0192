"""The targets of the default router, each a figure with whether it holds.

A target whose figure cannot be made is not met, and says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.quality.conditions import CONDITIONS, Condition
from benchmarks.quality.results import Gap
from benchmarks.quality.rows import (
    BARE,
    COMPARISON,
    DEFAULT_ROW,
    MULTITASK,
    ORACLE,
    ExpertRow,
    PerTaskRow,
)
from benchmarks.quality.statistics import Interval, calibration_error
from benchmarks.quality.summary import Group, Summary

OF_ORACLE: dict[Condition, float] = {
    "choices": 0.99, "instruction": 0.99, "reworded": 0.98, "input": 0.97,
}  # fmt: skip
INPUT_RIVALS = ("dam", "glider-3", "glider-100", "knn", "retrieval")
BOUNDS = (ORACLE, MULTITASK, DEFAULT_ROW)
"""Rows that the default need not beat held out."""
OVER_BARE, NO_LOSS = 3.0, -1.0  # points
MOST_ERROR, LEAST_AUROC = 0.05, 0.9


@dataclass(frozen=True)
class Target:
    """One target.

    Attributes:
        value: None where the figure cannot be made. note: why, or who was nearest.
    """

    figure: str
    value: float | None
    target: str | None
    holds: bool | None
    note: str = ""


def targets_of(summary: Summary, outside: Group) -> list[Target]:
    """Every target, in order.

    Args:
        outside: the tasks without an expert: held out, or left out while developing.
    """
    return [
        *(t for c in CONDITIONS[1:] for t in _informed(summary, outside, c)),
        *_input_only(summary, outside),
        _no_loss(summary, outside),
        *_confidence(summary, outside),
        *_answers(summary),
    ]


def _informed(summary: Summary, outside: Group, condition: Condition) -> Iterator[Target]:
    """Of the conditions in which the router sees more than the input."""
    yield _of_oracle(summary, condition)
    if condition == "instruction":
        yield _of_oracle_unseen(summary)
    others = [
        r.name
        for r in COMPARISON
        # What was made with a task cannot be asked about it as one that is left out.
        if r.name not in BOUNDS
        and not (outside.held == "left" and isinstance(r, ExpertRow | PerTaskRow))
    ]
    yield _above_best(summary, outside, condition, others, "every row but oracle and multitask")
    part = Group("out", bbh=False) if outside.held == "out" else outside
    yield _above(summary, part, condition, BARE, OVER_BARE, "the bare backbone")


def _input_only(summary: Summary, outside: Group) -> Iterator[Target]:
    yield _of_oracle(summary, "input")
    for name in INPUT_RIVALS:
        title = next(r.title for r in COMPARISON if r.name == name)
        yield _above(summary, Group("in"), "input", name, 0.0, title)
    yield _above(summary, outside, "input", BARE, 0.0, "the bare backbone")


def _of_oracle(summary: Summary, condition: Condition) -> Target:
    share = OF_ORACLE[condition]
    figure, target = f"{condition}, held in: default / oracle", f">= {share:g}"
    ours = summary.mean(summary.row(DEFAULT_ROW), Group("in"), condition)
    best = summary.mean(summary.row(ORACLE), Group("in"), condition)
    for found in (ours, best):
        if isinstance(found, Gap):
            return Target(figure, None, target, False, found.reason)
    if not best.mean:
        return Target(figure, None, target, False, "the oracle is never right")
    ratio = ours.mean / best.mean
    return Target(figure, round(ratio, 4), target, ratio >= share)


def _of_oracle_unseen(summary: Summary) -> Target:
    """The same by the sentence that the expert does not know; only reported."""
    figure = "instruction, held in, unseen third: default / oracle"
    ours, best = (summary.unseen(summary.row(name), Group("in")) for name in (DEFAULT_ROW, ORACLE))
    for found in (ours, best):
        if isinstance(found, Gap):
            return Target(figure, None, None, None, found.reason)
    return Target(figure, round(ours / best, 4) if best else None, None, None)


def _above(
    summary: Summary, group: Group, condition: Condition, name: str, least: float, title: str
) -> Target:
    """By how many points the default is above one row: at least `least`, or more than 0."""
    figure = f"{condition}, {group.title}: default - {title}, points"
    target = f">= {least:g}" if least else "> 0"
    ours = summary.mean(summary.row(DEFAULT_ROW), group, condition)
    other = summary.mean(summary.row(name), group, condition)
    for found in (ours, other):
        if isinstance(found, Gap):
            return Target(figure, None, target, False, found.reason)
    gain = 100 * (ours.mean - other.mean)
    return Target(figure, _points(gain), target, gain >= least if least else gain > 0)


def _above_best(
    summary: Summary, group: Group, condition: Condition, names: list[str], title: str
) -> Target:
    """By how many points the default is above the best of several rows, all of them made."""
    figure = f"{condition}, {group.title}: default - the best of {title}, points"
    ours = summary.mean(summary.row(DEFAULT_ROW), group, condition)
    if isinstance(ours, Gap):
        return Target(figure, None, "> 0", False, ours.reason)
    means = {name: summary.mean(summary.row(name), group, condition) for name in names}
    made = {name: m.mean for name, m in means.items() if not isinstance(m, Gap)}
    absent = [name for name in names if name not in made]
    if not made:
        return Target(figure, None, "> 0", False, "no row was made")
    best = max(made, key=lambda name: made[name])
    gain = 100 * (ours.mean - made[best])
    note = f"best: {best}" + (f"; not made: {', '.join(absent)}" if absent else "")
    return Target(figure, _points(gain), "> 0", gain > 0 and not absent, note)


def _no_loss(summary: Summary, outside: Group) -> Target:
    """On how many tasks and conditions the default is surely worse than no expert at all."""
    figure = "tasks and conditions with the paired interval of default - bare below -1 point"
    worse, gaps, asked = list[str](), list[str](), 0
    for condition in CONDITIONS:
        for group in (Group("in"), outside):
            for task, gain in summary.paired(group, condition):
                asked += 1
                if isinstance(gain, Gap):
                    gaps.append(f"{task} ({condition}): {gain.reason}")
                elif is_loss(gain):
                    worse.append(f"{task} ({condition})")
    complete = asked and not gaps
    note = "; ".join([*worse, *gaps[:1], *(["nothing was asked"] if not asked else [])])
    return Target(figure, float(len(worse)) if asked else None, "0",
                  bool(complete) and not worse, note)  # fmt: skip


def is_loss(gain: Interval) -> bool:
    """Whether an interval lies wholly below what counts as no loss."""
    return 100 * gain.high < NO_LOSS


def _confidence(summary: Summary, outside: Group) -> Iterator[Target]:
    where = f"input, held in and {outside.title}"
    error, auroc = f"{where}, half and half: calibration error", f"{where}: AUROC of confidence"
    found = summary.confidence(outside)
    if isinstance(found, Gap):
        yield Target(error, None, f"<= {MOST_ERROR}", False, found.reason)
        yield Target(auroc, None, f">= {LEAST_AUROC}", False, found.reason)
        return
    yield Target(error, round(found.error, 4), f"<= {MOST_ERROR}", found.error <= MOST_ERROR)
    yield Target(auroc, round(found.auroc, 4), f">= {LEAST_AUROC}", found.auroc >= LEAST_AUROC)


def _answers(summary: Summary) -> Iterator[Target]:
    """The answers' own calibration error: a target held in, reported reworded."""
    for condition in CONDITIONS:
        bound = condition != "reworded"
        figure = f"{condition}, held in: calibration error of the answers"
        target = f"<= {MOST_ERROR}" if bound else None
        found = summary.answers(Group("in"), condition)
        if isinstance(found, Gap):
            yield Target(figure, None, target, False if bound else None, found.reason)
            continue
        error = calibration_error(*found)
        yield Target(figure, round(error, 4), target, error <= MOST_ERROR if bound else None)


def _points(gain: float) -> float:
    """A difference as it is kept; never a negative zero."""
    return round(gain, 2) or 0.0
