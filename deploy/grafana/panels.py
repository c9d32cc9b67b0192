"""What a dashboard is made of, in a form that can be reviewed: boards of rows of panels.

Knows nothing of Grafana's JSON (`build.py` does) and nothing of single metrics (`boards/` does).
In an expression `$on` stands for the job and instances that the reader chose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["lines", "area", "stat", "heat", "table"]
"""How a panel draws: lines, lines stacked upon each other, one number, buckets over time, a table
of labels."""
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Query:
    """One expression, and the name of its lines; labels stand in it as `{{label}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        description: what it shows, and what to do when that looks bad.
        unit: as Grafana names it. width: of 24 columns. most: the top of the axis, where it is
            known. warn, alarm: from which value on a number is yellow, and red; where `alarm` is
            the lower one, low values are bad.
    """

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    form: Form = "lines"
    width: int = 8
    most: float | None = None
    warn: float | None = None
    alarm: float | None = None


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """A dashboard. `uid` is its address in Grafana and the name of its file."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def quantiles(
    metric: str, by: str = "", where: str = "", levels: tuple[float, ...] = QUANTILES
) -> tuple[Query, ...]:
    """Queries for quantiles of a histogram.

    Args:
        metric: its name, without prefix and `_bucket`. by: a label to tell apart. where: more
            label matchers.
    """
    labels, chosen = f"le, {by}" if by else "le", f"$on, {where}" if where else "$on"
    rate = f"sum by ({labels}) (rate(sailplane_{metric}_bucket{{{chosen}}}[$__rate_interval]))"
    named = f"{{{{{by}}}}} " if by else ""
    return tuple(
        Query(f"histogram_quantile({level:g}, {rate})", f"{named}p{100 * level:g}")
        for level in levels
    )


def mean(metric: str) -> Query:
    """The mean of a histogram."""
    total, count = (per_second(f"{metric}_{part}") for part in ("sum", "count"))
    return Query(f"{total} / {count}", "mean")


def per_second(metric: str, by: str = "", where: str = "") -> str:
    """The expression of a counter's rate, summed over instances."""
    chosen, grouped = f"$on, {where}" if where else "$on", f" by ({by})" if by else ""
    return f"sum{grouped} (rate(sailplane_{metric}{{{chosen}}}[$__rate_interval]))"


def heat(metric: str) -> tuple[Query, ...]:
    """How a histogram's values are spread over time."""
    counted = f"sailplane_{metric}_bucket{{$on}}[$__rate_interval]"
    return (Query(f"sum by (le) (increase({counted}))", "{{le}}"),)
