"""A picture a stream: average accuracy over the tasks seen so far, a line a row.

Rows that differ from another in where experts start alone are left to the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure as Picture

from benchmarks.continual.rows import DAM, DEFAULT, ORACLE, PROMPTS, ROWS, SEQUENTIAL

DRAWN = (SEQUENTIAL, "replay", "ewc", "average", PROMPTS, DAM, "multitask", ORACLE, DEFAULT)
OURS = "#b5482a"
OTHERS = [c for place, c in enumerate(colormaps["tab10"].colors) if place != 3]  # too near to OURS


def draw(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw what `report.figures` found; the files."""
    drawn: list[Path] = []
    for stream, kinds in found["rows"].items():
        picture = Picture(figsize=(5 * len(kinds) + 2.6, 4.4), dpi=120, layout="constrained")
        panels = np.atleast_1d(picture.subplots(1, len(kinds), sharey=True))
        for axes, (kind, rows) in zip(panels, kinds.items(), strict=True):
            _panel(axes, kind, rows, found["tasks"][stream])
        panels[0].set_ylabel("average accuracy on the tasks so far, %")
        panels[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
        drawn.append(folder / f"continual-{stream}.png")
        folder.mkdir(parents=True, exist_ok=True)
        # Without the version of matplotlib, equal pictures are equal files.
        picture.savefig(drawn[-1], metadata={"Software": None})
    return drawn


def _panel(axes: Any, kind: str, rows: Mapping[str, Any], tasks: Sequence[str]) -> None:
    for name, colour in zip(DRAWN, OTHERS, strict=True):
        row = ROWS[name]
        if name in rows:
            axes.plot(
                range(1, len(tasks) + 1), rows[name]["steps"], "o-" if row.forgets else "--",
                color=OURS if name == DEFAULT else colour, label=row.title, markersize=3,
                linewidth=2.6 if name == DEFAULT else 1.3,
            )  # fmt: skip
    axes.set_xticks(range(1, len(tasks) + 1), tasks, rotation=30, ha="right", fontsize=8)
    axes.set_title(kind, loc="left", fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
