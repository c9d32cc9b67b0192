"""The pictures of the report: rows by tasks, who was chosen, accuracy against K, reliability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from benchmarks.quality.cells import Cell
from benchmarks.quality.conditions import Condition
from benchmarks.quality.parts import Held
from benchmarks.quality.results import Gap
from benchmarks.quality.rows import COUNTS, CURVES, DEFAULT_ROW
from benchmarks.quality.statistics import Interval, reliability
from benchmarks.quality.summary import Group, Summary

if TYPE_CHECKING:
    from benchmarks.quality.run import Found

COLOURS = ("#b5482a", "#20639b", "#3a8a5f")
NO_EXPERT = "none"
HEADLINE: tuple[Condition, ...] = ("reworded", "choices", "instruction", "input")


def draw(found: Found, folder: Path) -> dict[str, Path]:
    """Draw what this run has figures for: name -> file."""
    summary, curve = found.summary, found.curve
    held: Held = "left" if found.order.aside else "out"
    shown = next(c for c in HEADLINE if c in found.order.conditions)
    pictures: dict[str, Callable[[], Picture | None]] = {
        "heat": lambda: heat(summary, shown),
        "confusion": lambda: confusion(summary, "input"),
        "reliability": lambda: reliabilities(summary, Group(held)),
        "count": lambda: against_count(curve) if curve else None,
    }
    drawn: dict[str, Path] = {}
    for name, make in pictures.items():
        if (picture := make()) is not None:
            drawn[name] = folder / f"quality-{name}.png"
            # Without the version of matplotlib, equal pictures are equal files.
            picture.savefig(drawn[name], metadata={"Software": None})
    return drawn


def heat(summary: Summary, condition: Condition) -> Picture:
    """Rows by tasks, accuracy as colour; what was not made stays empty."""
    rows = [r for r in summary.rows if r.group == "comparison"]
    places = [(p, t) for p, tasks in summary.results.questions.tasks.items() for t in tasks]
    found = [[summary.results.cell(r, p, t, condition) for p, t in places] for r in rows]
    share = np.array(
        [[c.accuracy if isinstance(c, Cell) else np.nan for c in row] for row in found]
    )
    picture = Picture(
        figsize=(2.8 + 0.32 * len(places), 1.8 + 0.28 * len(rows)), dpi=120, layout="constrained"
    )
    axes = picture.subplots()
    image = axes.imshow(100 * share, aspect="auto", cmap="viridis", vmin=0, vmax=100)
    _ticks(axes, [f"{t.name} ({p.held})" for p, t in places], [r.title for r in rows])
    axes.set_title(f"accuracy, {condition}", loc="left", fontsize=9)
    picture.colorbar(image, ax=axes, shrink=0.8)
    return picture


def confusion(summary: Summary, condition: Condition) -> Picture | None:
    """Which expert the default gave most weight, by task."""
    parts = summary.results.questions.tasks
    row = summary.row(DEFAULT_ROW)
    if row is None or condition not in summary.results.questions.conditions:
        return None
    experts = [*summary.results.bench.experts, NO_EXPERT]
    names: list[str] = []
    lines: list[list[float]] = []
    for part, tasks in parts.items():
        for task in tasks:
            cell = summary.results.cell(row, part, task, condition)
            if isinstance(cell, Gap):
                continue
            counted = Counter(first or NO_EXPERT for first in cell.first)
            names.append(f"{task.name} ({part.held})")
            lines.append([100 * counted[e] / len(cell) for e in experts])
    picture = Picture(
        figsize=(3.2 + 0.3 * len(experts), 1.8 + 0.24 * len(names)), dpi=120, layout="constrained"
    )
    axes = picture.subplots()
    image = axes.imshow(np.array(lines), aspect="auto", cmap="Blues", vmin=0, vmax=100)
    _ticks(axes, experts, names)
    axes.set_title(f"first expert, % of inputs, default, {condition}", loc="left", fontsize=9)
    picture.colorbar(image, ax=axes, shrink=0.8)
    return picture


def reliabilities(summary: Summary, outside: Group) -> Picture | None:
    """Confidence against outcome: of routing on `input`, and of the answers."""
    routed = summary.confidence(outside)
    if isinstance(routed, Gap):
        return None
    picture = Picture(figsize=(8, 4), dpi=120, layout="constrained")
    left, right = picture.subplots(1, 2)
    _diagonal(left, "confidence of routing (input)", "share whose own expert came first")
    left.plot(*zip(*reliability(*routed.pooled), strict=True), "o-", color=COLOURS[1])
    _diagonal(right, "probability of the answer", "share of right answers, held in")
    shown: tuple[Condition, ...] = ("choices", "reworded")
    for condition, colour in zip(shown, COLOURS, strict=False):
        answers = summary.answers(Group("in"), condition)
        if not isinstance(answers, Gap):
            top_N, right_N = answers
            points = reliability(top_N, right_N, np.ones(len(top_N)))
            right.plot(*zip(*points, strict=True), "o-", color=colour, label=condition)
    if right.lines[1:]:
        right.legend(frameon=False)
    return picture


def against_count(curve: Summary) -> Picture:
    """Mean accuracy against how many experts are merged."""
    conditions = curve.results.questions.conditions
    picture = Picture(figsize=(4 * len(conditions), 4), dpi=120, layout="constrained")
    for axes, condition in zip(
        np.atleast_1d(picture.subplots(1, len(conditions), sharey=True)), conditions, strict=True
    ):
        for (title, preset), colour in zip(CURVES.items(), COLOURS, strict=True):
            for held, style in (("in", "o-"), ("left", "o--")):
                means = [curve.mean(curve.row(f"{preset}-k{k}"), Group(held), condition)
                         for k in COUNTS]  # fmt: skip
                known = [(k, 100 * m.mean) for k, m in zip(COUNTS, means, strict=True)
                         if isinstance(m, Interval)]  # fmt: skip
                if known:
                    label = f"{title}, {'held in' if held == 'in' else 'left out'}"
                    axes.plot(*zip(*known, strict=True), style, color=colour, label=label)
        axes.set(title=condition, xlabel="experts merged (K)", xscale="log")
        axes.set_xticks(COUNTS, [str(k) for k in COUNTS])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    picture.axes[0].set_ylabel("mean accuracy, set aside, %")
    picture.axes[0].legend(frameon=False, fontsize=7)
    return picture


def _diagonal(axes: Axes, x: str, y: str) -> None:
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(axes: Axes, x: Sequence[str], y: Sequence[str]) -> None:
    axes.set_xticks(range(len(x)), x, rotation=90, fontsize=7)
    axes.set_yticks(range(len(y)), y, fontsize=7)
