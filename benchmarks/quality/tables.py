"""The tables of the report, as lines of Markdown. Decides no figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.documents import table
from benchmarks.quality.cells import Cell
from benchmarks.quality.conditions import Condition
from benchmarks.quality.results import Gap
from benchmarks.quality.rows import BARE, DEFAULT_ROW, Row
from benchmarks.quality.statistics import Interval
from benchmarks.quality.summary import Group, Summary
from benchmarks.quality.targets import Target

NOT_MADE = "-"
HEADS = {"single": "single", "knn": "kNN", "dam": "DAM", "phatgoose": "PHATG.", "base": "bare",
         "arithmetic": "arith.", "glider-3": "GL. 3", "glider-100": "GL. 100"}  # fmt: skip
"""Short heads of the wide tables, where a row's name is too long or too plain."""


def percent(found: Interval | float | Gap) -> str:
    """An accuracy in percent; an interval in brackets."""
    if isinstance(found, Gap):
        return NOT_MADE
    if isinstance(found, Interval):
        return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return f"{100 * found:.1f}"


def number(found: float | Gap | None, digits: int = 2) -> str:
    """A plain figure."""
    return NOT_MADE if found is None or isinstance(found, Gap) else f"{found:.{digits}f}"


def comparison(summary: Summary, rows: Sequence[Row], condition: Condition) -> list[str]:
    """Rows by groups of tasks, means with intervals; under `instruction` the unseen third too."""
    groups = summary.groups
    told = [g for g in groups if g.bbh is None] if condition == "instruction" else []
    head = ["", *[g.title for g in groups], *[f"{g.title}, unseen third" for g in told]]
    lines = [
        [
            f"**{row.title}**" if row.name == DEFAULT_ROW else row.title,
            *[percent(summary.mean(row, g, condition)) for g in groups],
            *[percent(summary.unseen(row, g)) for g in told],
        ]
        for row in rows
    ]
    return table(head, lines)


def routing(summary: Summary, rows: Sequence[Row], milliseconds: Mapping[str, float]) -> list[str]:
    """Who came first, how many experts acted, and what it took."""
    conditions = summary.results.questions.conditions
    groups = [g for g in summary.groups if g.bbh is None]
    used: Condition = "reworded" if "reworded" in conditions else conditions[0]
    told = ["instruction"] if "instruction" in conditions else []
    head = ["", *[f"own first, {c}" for c in conditions],
            *[f"own first, {c}, unseen third" for c in told],
            *[f"experts, {g.title}, {used}" for g in groups], "ms/input", "/ bare"]  # fmt: skip
    bare = milliseconds.get(BARE)
    lines = [
        [
            row.title,
            *[percent(summary.first_is_own(row, c)) for c in conditions],
            *[percent(summary.first_is_own(row, "instruction", unseen=True)) for _ in told],
            *[number(summary.experts_used(row, g, used)) for g in groups],
            number(spent := milliseconds.get(row.name), 1),
            number(spent / bare if spent and bare else None, 1),
        ]
        for row in rows
    ]
    return table(head, lines)


def per_task(summary: Summary, rows: Sequence[Row], condition: Condition) -> list[str]:
    """Tasks by rows."""
    head = ["task", *[HEADS.get(row.name, row.name) for row in rows]]
    lines: list[list[str]] = []
    for group in (g for g in summary.groups if g.bbh is None):
        part = summary.results.part(group.held)
        assert part is not None
        for task in summary.tasks(group):
            found = [summary.results.cell(row, part, task, condition) for row in rows]
            accuracies = [f"{100 * c.accuracy:.1f}" if isinstance(c, Cell) else NOT_MADE
                          for c in found]  # fmt: skip
            lines.append([task.name, *accuracies])
        means = [summary.mean(row, group, condition) for row in rows]
        cells = [percent(m.mean if isinstance(m, Interval) else m) for m in means]
        lines.append([f"**mean, {group.title}**", *[f"**{c}**" for c in cells]])
    return table(head, lines)


def gains(summary: Summary, condition: Condition) -> list[str]:
    """The default against the bare backbone on the same examples, a task a line."""
    lines = [
        [task, *([NOT_MADE, NOT_MADE] if isinstance(gain, Gap) else
                 [f"{100 * gain.mean:+.1f}", f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"])]
        for group in summary.groups if group.bbh is None
        for task, gain in summary.paired(group, condition)
    ]  # fmt: skip
    return table(["task", "default - bare", "95%"], lines)


def ablations(summary: Summary, rows: Sequence[Row]) -> list[str]:
    """Each variant's mean by condition, and what it gains or loses against the default."""
    groups = [g for g in summary.groups if g.bbh is None]
    head = ["", *[f"{c}, {g.title}" for c in summary.results.questions.conditions for g in groups]]
    lines: list[list[str]] = []
    for row in rows:
        cells: list[str] = []
        for condition in summary.results.questions.conditions:
            for group in groups:
                ours = summary.mean(summary.row(DEFAULT_ROW), group, condition)
                mean = summary.mean(row, group, condition)
                gap = isinstance(ours, Gap) or isinstance(mean, Gap)
                cells.append(NOT_MADE if gap else _with_gain(mean, ours))
        lines.append([row.title, *cells])
    return table(head, lines)


def _with_gain(mean: Interval, ours: Interval) -> str:
    return f"{100 * mean.mean:.1f} ({100 * (mean.mean - ours.mean):+.1f})"


def targets(found: Sequence[Target]) -> list[str]:
    """Every target, and what stands in its way."""
    words = {None: "", True: "yes", False: "**no**"}
    lines = [
        [t.figure, NOT_MADE if t.value is None else f"{t.value:g}", t.target or "", words[t.holds],
         t.note]
        for t in found
    ]  # fmt: skip
    return table(["figure", "value", "target", "holds", "note"], lines)


def gaps(summary: Summary, rows: Sequence[Row]) -> list[str]:
    """Which rows could not be made for which groups, and the first reason."""
    lines: list[str] = []
    for row in rows:
        reasons: dict[str, list[str]] = {}
        for group in (g for g in summary.groups if g.bbh is None):
            for condition in summary.results.questions.conditions:
                found = summary.cells(row, group, condition)
                if isinstance(found, Gap):
                    reasons.setdefault(found.reason, []).append(f"{group.title}, {condition}")
        lines += [f"- {row.title}: {why} ({'; '.join(w)})" for why, w in reasons.items()]
    return [*lines, ""] if lines else []


def curve(summary: Summary, names: Mapping[str, str], counts: Sequence[int]) -> list[str]:
    """Accuracy against K: a line per way to choose and weigh them.

    Args:
        names: title -> preset.
    """
    groups: list[Group] = summary.groups
    asked = [(g, c) for g in groups for c in summary.results.questions.conditions]
    head = ["", "K", *[f"{c}, {g.title}" for g, c in asked]]
    lines = [
        [title, str(k), *[percent(summary.mean(summary.row(f"{preset}-k{k}"), g, c))
                          for g, c in asked]]
        for title, preset in names.items()
        for k in counts
    ]  # fmt: skip
    return table(head, lines)
