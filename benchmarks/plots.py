"""Pictures of kept figures, for the documents: `python -m benchmarks.plots`."""

from __future__ import annotations

import json
import re
from pathlib import Path

from matplotlib.figure import Figure as Picture

from benchmarks.places import DOCS, RESULTS

CURVE = re.compile(r"throughput / all hot, working set (\d+)x the device, (.+)")
LINES = {"from disk": "#b5482a", "all on the host": "#20639b"}


def working_set(results: Path = RESULTS, target: Path = DOCS / "library.png") -> Path:
    """Draw throughput against working set over budget, as `library` measured it."""
    points: dict[str, list[tuple[int, float]]] = {where: [(1, 1.0)] for where in LINES}
    for figure in json.loads((results / "library.json").read_text("utf-8")):
        if found := CURVE.fullmatch(figure["figure"]):
            points[found[2]].append((int(found[1]), figure["value"]))
    picture = Picture(figsize=(7, 4), dpi=120, layout="constrained")
    axes = picture.subplots()
    for where, colour in LINES.items():
        over, share = zip(*sorted(points[where]), strict=True)
        axes.plot(over, share, "o-", color=colour)
        axes.annotate(
            f"the rest {where.removeprefix('all ')}", (over[-1], share[-1]), (8, 0),
            textcoords="offset points", color=colour, va="center",
        )  # fmt: skip
    axes.set(
        xlabel="working set / what the device holds (Zipf(1) traffic)",
        ylabel="throughput / traffic all in memory",
        ylim=(0, 1.1), xlim=(0.8, 34), xscale="log",
    )  # fmt: skip
    ticks = sorted({over for line in points.values() for over, _ in line})
    axes.set_xticks(ticks, [f"{t}x" for t in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(target)
    return target


if __name__ == "__main__":
    working_set()
