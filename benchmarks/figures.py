"""A measured figure, its target, and how figures are shown and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.places import RESULTS


@dataclass(frozen=True)
class Figure:
    """One line of a result.

    Attributes:
        figure: what was measured, unit included. target: as text, None where only reported.
        holds: whether the target was met, None without one.
    """

    figure: str
    value: float
    target: str | None = None
    holds: bool | None = None


def reported(figure: str, value: float) -> Figure:
    """A figure without a target."""
    return Figure(figure, _rounded(value))


def at_most(figure: str, value: float, limit: float) -> Figure:
    """A figure that holds up to `limit`."""
    return Figure(figure, _rounded(value), f"<= {limit:g}", value <= limit)


def at_least(figure: str, value: float, limit: float) -> Figure:
    """A figure that holds from `limit` on."""
    return Figure(figure, _rounded(value), f">= {limit:g}", value >= limit)


def save(name: str, figures: Sequence[Figure], folder: Path = RESULTS) -> Path:
    """Write `<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps([asdict(f) for f in figures], indent=2) + "\n", "utf-8")
    return path


def show(name: str, figures: Sequence[Figure], console: Console) -> None:
    """Print the figures as a table."""
    table = Table("figure", "value", "target", "holds", title=name, title_justify="left")
    table.columns[1].justify = "right"
    words = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}
    for f in figures:
        table.add_row(f.figure, f"{f.value:g}", f.target or "", words[f.holds])
    console.print(table)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
