"""What the comparison teaches, in sentences whose numbers come from the tables.

The words are written by hand; a number that was not made shows as `-`, so no sentence can claim
what no table holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.quality.conditions import Condition
from benchmarks.quality.parts import Held
from benchmarks.quality.results import Gap
from benchmarks.quality.summary import Group, Summary
from routers.presets import DEFAULT


@dataclass(frozen=True, eq=False)
class Numbers:
    """Figures of a run, as text, for sentences.

    Attributes:
        curve: of accuracy against K, if it was measured.
    """

    summary: Summary
    curve: Summary | None
    milliseconds: Mapping[str, float]

    def mean(self, row: str, held: Held, condition: Condition) -> str:
        """A row's mean accuracy in percent."""
        return _percent(self._mean(self.summary, row, held, condition))

    def gain(self, row: str, other: str, held: Held, condition: Condition) -> str:
        """By how many points one row is above another."""
        ours = self._mean(self.summary, row, held, condition)
        theirs = self._mean(self.summary, other, held, condition)
        return "-" if ours is None or theirs is None else f"{100 * (ours - theirs):+.1f}"

    def at_k(self, preset: str, k: int, held: Held, condition: Condition) -> str:
        """Mean accuracy with the K best of a preset merged."""
        if self.curve is None:
            return "-"
        return _percent(self._mean(self.curve, f"{preset}-k{k}", held, condition))

    def first_is_own(self, row: str, condition: Condition) -> str:
        """Routing accuracy of a row in percent."""
        found = self.summary.row(row)
        share = self.summary.first_is_own(found, condition) if found else None
        return _percent(None if isinstance(share, Gap) else share)

    def time(self, row: str) -> str:
        """Milliseconds per input."""
        return f"{self.milliseconds[row]:.1f}" if row in self.milliseconds else "-"

    def _mean(self, summary: Summary, row: str, held: Held, condition: Condition) -> float | None:
        found = summary.mean(summary.row(row), Group(held), condition)
        return None if isinstance(found, Gap) else found.mean


Finding = Callable[[Numbers, Held], str]

FINDINGS: tuple[Finding, ...] = (
    lambda n, out: (
        "**Merging or choosing.** With the default's own weights, the best expert alone reaches "
        f"{n.at_k(DEFAULT, 1, 'in', 'reworded')} and the best two merged "
        f"{n.at_k(DEFAULT, 2, 'in', 'reworded')} on held-in tasks (reworded); on tasks whose "
        f"expert is not there {n.at_k(DEFAULT, 1, 'left', 'reworded')} and "
        f"{n.at_k(DEFAULT, 2, 'left', 'reworded')}."
    ),
    lambda n, out: (
        "**What a wrong choice costs.** Routed by the input alone, DAM has the task's own expert "
        f"first for {n.first_is_own('dam', 'input')}% of held-in inputs and answers "
        f"{n.mean('dam', 'in', 'input')}% rightly; the own expert answers "
        f"{n.mean('oracle', 'in', 'input')}%, no expert {n.mean('base', 'in', 'input')}%."
    ),
)  # fmt: skip
"""One paragraph each; `out` is the part of tasks without an expert in this run."""


def paragraphs(numbers: Numbers, out: Held) -> list[str]:
    """Every finding, as paragraphs of Markdown."""
    return [line for finding in FINDINGS for line in (finding(numbers, out), "")]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
