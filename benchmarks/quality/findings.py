"""What the comparison teaches, in sentences whose numbers come from the tables.

The words are written by hand; a number that was not made shows as `-`, so no sentence can claim
what no table holds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.continual import rows as streams
from benchmarks.places import RESULTS
from benchmarks.quality.conditions import Condition
from benchmarks.quality.misrouted import misrouted
from benchmarks.quality.parts import Held
from benchmarks.quality.results import Gap
from benchmarks.quality.rows import BARE, COUNTS, DAM, DEFAULT_ROW, ORACLE
from benchmarks.quality.summary import Group, Summary
from routers.presets import DEFAULT


@dataclass(frozen=True, eq=False)
class Numbers:
    """Figures of a run, as text, for sentences.

    Attributes:
        curve: of accuracy against K, and ablations: of variants of the default; where measured.
        gains: of continual initialisation, from `make continual`.
    """

    summary: Summary
    curve: Summary | None
    ablations: Summary | None
    gains: Sequence[Mapping[str, Any]] = ()

    def mean(self, row: str, held: Held, condition: Condition) -> str:
        """A row's mean accuracy in percent."""
        return _percent(self._mean(self.summary, row, held, condition))

    def gain(self, row: str, other: str, held: Held, condition: Condition) -> str:
        """By how many points one row is above another."""
        return self._gain(self.summary, row, other, held, condition)

    def effect(self, row: str, other: str, held: Held, condition: Condition) -> str:
        """The same of variants of the default, on the data set aside."""
        return self._gain(self.ablations, row, other, held, condition) if self.ablations else "-"

    def over_k(self, preset: str, held: Held, condition: Condition) -> str:
        """Mean accuracy with the K best of a preset merged, for every K."""
        if self.curve is None:
            return "-"
        means = {k: self._mean(self.curve, f"{preset}-k{k}", held, condition) for k in COUNTS}
        return ", ".join(f"{_percent(mean)} with {k}" for k, mean in means.items())

    def unseen(self, row: str, held: Held) -> str:
        """A row's mean accuracy in percent, asked by the sentence that no fitting used."""
        found = self.summary.unseen(self.summary.row(row), Group(held))
        return _percent(None if isinstance(found, Gap) else found)

    def where_wrong(self, row: str, condition: Condition) -> str:
        """What a row answers where it has another expert than the task's own first."""
        found = misrouted(self.summary, self.summary.row(row), condition)
        if isinstance(found, Gap):
            return "- of - inputs"
        return (
            f"{_percent(found.routed)}% of {found.count:,} inputs (the own expert "
            f"{_percent(found.own)}%, no expert {_percent(found.bare)}%)"
        )

    def continued(self, row: str) -> str:
        """By how many points a row gains where experts start from the former one, by stream."""
        of_row = [g for g in self.gains if g["row"] == row]
        found = [
            f"{g['points']:+.1f} in {g['stream']}, {g['kind']} "
            f"({', '.join(f'{points:+.1f}' for points in g['seeds'])})"
            for g in of_row
        ]
        return ", ".join(found) or "-"

    def _gain(
        self, summary: Summary, row: str, other: str, held: Held, condition: Condition
    ) -> str:
        ours, theirs = (self._mean(summary, name, held, condition) for name in (row, other))
        return "-" if ours is None or theirs is None else f"{100 * (ours - theirs):+.1f}"

    def _mean(self, summary: Summary, row: str, held: Held, condition: Condition) -> float | None:
        found = summary.mean(summary.row(row), Group(held), condition)
        return None if isinstance(found, Gap) else found.mean


Finding = Callable[[Numbers, Held], str]

FINDINGS: tuple[Finding, ...] = (
    lambda n, out: (
        "**When merging beats choosing.** When no expert surely fits. On examples set aside, with "
        "the task's own expert left out, the default's first expert alone is "
        f"{n.effect('one-expert', BARE, 'left', 'choices')} points from the bare backbone "
        f"(choices) and its merge {n.effect(DEFAULT_ROW, BARE, 'left', 'choices')}; reworded "
        f"{n.effect('one-expert', BARE, 'left', 'reworded')} and "
        f"{n.effect(DEFAULT_ROW, BARE, 'left', 'reworded')}. With the own expert there, the first "
        f"alone is {n.effect('one-expert', DEFAULT_ROW, 'in', 'input')} points from the merge by "
        f"the input, {n.effect('one-expert', DEFAULT_ROW, 'in', 'choices')} by the choices."
    ),
    lambda n, out: (
        "**How many to mix.** Of the default's weights, on examples set aside and reworded: held "
        f"in {n.over_k(DEFAULT, 'in', 'reworded')}; with the task's own expert left out "
        f"{n.over_k(DEFAULT, 'left', 'reworded')}. With equal weights: held in "
        f"{n.over_k('retrieval', 'in', 'reworded')}; left out "
        f"{n.over_k('retrieval', 'left', 'reworded')}."
    ),
    lambda n, out: (
        "**What a wrong choice costs.** Routed by the input alone, where another expert than the "
        f"task's own comes first: kNN, which uses that one alone, answers rightly "
        f"{n.where_wrong('knn', 'input')}; DAM, which merges two, "
        f"{n.where_wrong(DAM, 'input')}; the default {n.where_wrong(DEFAULT_ROW, 'input')}. "
        "So a wrong expert alone is much nearer to none than to the right one, and merging gives "
        "some of the loss back. On tasks without an expert "
        f"the nearest one alone (kNN, by the input) is {n.gain('knn', BARE, out, 'input')} points "
        "from no expert at all."
    ),
    lambda n, out: (
        "**What knowing that nothing fits is worth.** On examples set aside, mixing flatter and "
        "weaker where the router is unsure moves tasks whose expert is left out by "
        f"{n.effect(DEFAULT_ROW, 'no-hedge', 'left', 'input')} points (input), "
        f"{n.effect(DEFAULT_ROW, 'no-hedge', 'left', 'choices')} (choices) and "
        f"{n.effect(DEFAULT_ROW, 'no-hedge', 'left', 'reworded')} (reworded), and tasks whose "
        f"expert is there by {n.effect(DEFAULT_ROW, 'no-hedge', 'in', 'input')}, "
        f"{n.effect(DEFAULT_ROW, 'no-hedge', 'in', 'choices')} and "
        f"{n.effect(DEFAULT_ROW, 'no-hedge', 'in', 'reworded')}."
    ),
    lambda n, out: (
        "**What words buy.** The default reaches on held-in tasks "
        f"{n.mean(DEFAULT_ROW, 'in', 'input')}% by the input alone, "
        f"{n.mean(DEFAULT_ROW, 'in', 'choices')}% when it also sees the choices and "
        f"{n.mean(DEFAULT_ROW, 'in', 'instruction')}% when it sees a caller's sentence "
        f"({n.unseen(DEFAULT_ROW, 'in')}% by one that no fitting saw; the own expert answers "
        f"{n.unseen(ORACLE, 'in')}% of those). The own expert answers "
        f"{n.mean(ORACLE, 'in', 'choices')}%: where a question comes with choices, that is all "
        "that a sentence could still add. Reworded, and on tasks without an expert, both together "
        "were not measured. The sentences were written by people: no language model was at hand, "
        "and what one would write was not measured."
    ),
    lambda n, _: (
        "**What continual initialisation buys.** In [streams of tasks](continual.md), starting "
        "each expert from the one before in place of afresh changes the final accuracy of the "
        f"task's own expert by {n.continued(streams.ORACLE)} points, of DAM's merges by "
        f"{n.continued(streams.DAM)}, and of the default's by {n.continued(streams.DEFAULT)}. In "
        "brackets stands each seed; where their signs differ, this shows no gain."
    ),
)  # fmt: skip
"""One paragraph each; `out` is the part of tasks without an expert in this run."""


def kept_gains(results: Path = RESULTS) -> list[dict[str, Any]]:
    """What `make continual` last found; none before it was run."""
    path = results / "continual.json"
    return json.loads(path.read_text("utf-8"))["gains"] if path.exists() else []


def paragraphs(numbers: Numbers, out: Held) -> list[str]:
    """Every finding, as paragraphs of Markdown."""
    return [line for finding in FINDINGS for line in (finding(numbers, out), "")]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
