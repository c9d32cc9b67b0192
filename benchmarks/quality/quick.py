"""The quick run, and whether its means are still what they were: a check against regressions.

It asks few examples, all of them set aside before training, so the margins fit no test file. The
same code gives the same answers; a margin leaves room for another machine's rounding.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.quality.results import Gap
from benchmarks.quality.rows import BARE, COMPARISON, DAM, DEFAULT_ROW, ORACLE
from benchmarks.quality.run import Found, Order
from experts.atomic import atomic_write

QUICK_ROWS = (BARE, DAM, DEFAULT_ROW, ORACLE)
QUICK = Order(
    tuple(row for row in COMPARISON if row.name in QUICK_ROWS),
    held=("in", "left"), aside=True, limit=20, timed=False, studies=False,
    again=frozenset({BARE, DAM, DEFAULT_ROW}),
)  # fmt: skip
"""What is kept of routed rows is no answer to whether code of today gives it."""
MARGINS = Path(__file__).with_name("margins.json")
MARGIN = 0.015
"""How far a mean may fall; a step of one answer on one task is 0.003."""


def means_of(found: Found) -> dict[str, float]:
    """Mean accuracies by `<group>/<condition>/<row>`."""
    summary = found.summary
    return {
        f"{group.title}/{condition}/{row.name}": round(mean.mean, 4)
        for row in summary.rows
        for group in summary.groups
        for condition in found.order.conditions
        if not isinstance(mean := summary.mean(row, group, condition), Gap)
    }


def check(found: Found, *, accept: bool = False, path: Path = MARGINS) -> list[str]:
    """What has become worse than the margins allow, in sentences; none when all is well.

    Args:
        accept: keep what was found as what is expected from now on.
    """
    means = means_of(found)
    if accept:
        atomic_write(
            path, (json.dumps({"margin": MARGIN, "means": means}, indent=1) + "\n").encode()
        )
        return []
    if not path.exists():
        return [f"{path.name} is not there; --quick --accept writes it."]
    kept = json.loads(path.read_text("utf-8"))
    faults: list[str] = []
    for name, expected in kept["means"].items():
        mean = means.get(name)
        if mean is None:
            faults.append(f"{name} was not measured; it was {100 * expected:.1f}.")
        elif mean < expected - kept["margin"]:
            faults.append(
                f"{name} fell from {100 * expected:.1f} to {100 * mean:.1f}: more than "
                f"{100 * kept['margin']:.1f} points."
            )
    return faults
