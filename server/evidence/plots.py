"""A routing log's figures as PNG files. Needs matplotlib, imported when a plot is drawn.

Draws what `summary` and `drift` computed, and computes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.evidence.drift import Compared, Drift
from server.evidence.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS, MOST_CELLS = 24, 16
"""Experts in a plot; the legend says how many are left out."""
DARK, LIGHT, OTHER = "#1f5a8c", "#b9d3ea", "#d9822b"
STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "figure.dpi": 130,
}
Draw = Callable[["Figure", Summary, "Compared | None"], bool]


class MissingPlots(RuntimeError):
    """matplotlib is not installed."""


def write_plots(folder: Path, summary: Summary, drift: Compared | None) -> list[Path]:
    """Draw all that there is something for, and return the files.

    Raises:
        MissingPlots: there is no matplotlib.
        OSError: the folder cannot be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPlots("Plots need matplotlib: pip install 'sailplane[plots]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, draw in PLOTS.items():
        with rc_context(STYLE):  # pyright: ignore[reportArgumentType]
            figure = Figure(layout="constrained")
            if draw(figure, summary, drift):
                written.append(folder / f"{name}.png")
                figure.savefig(written[-1])
    return written


def _usage(figure: Figure, summary: Summary, drift: Compared | None) -> bool:
    """Bars: how often each expert took part, and how often it came first."""
    shown = summary.usage[:MOST_BARS]
    if not shown:
        return False
    figure.set_size_inches(7.5, 1.3 + 0.3 * len(shown))
    axes = figure.subplots()
    names = [use.expert for use in shown]
    axes.barh(names, [100 * use.share for use in shown], color=LIGHT, label="selected")
    first = [100 * use.first_share for use in shown]
    axes.barh(names, first, height=0.45, color=DARK, label="with the most weight")
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel="share of questions (%)")
    axes.set_title(f"Usage of experts, {summary.span.questions} questions")
    _grid(axes, "x")
    left = len(summary.usage) - len(shown)
    axes.legend(
        loc="lower right", frameon=False, title=f"{left} more experts not shown" if left else None
    )
    return True


def _together(figure: Figure, summary: Summary, drift: Compared | None) -> bool:
    """A heat map: of the questions that a row's expert answered, how many a column's did too."""
    if not summary.pairs:
        return False
    counts = {use.expert: use.count for use in summary.usage}
    busy = {id for pair in summary.pairs for id in pair.experts}
    names = [id for id in counts if id in busy][:MOST_CELLS]
    both = {pair.experts: pair.count for pair in summary.pairs}
    both |= {(b, a): count for (a, b), count in both.items()}
    size = 2.6 + 0.36 * len(names)
    figure.set_size_inches(size + 1.0, size)
    axes = figure.subplots()
    shares = [
        [float("nan") if a == b else 100 * both.get((a, b), 0) / counts[a] for b in names]
        for a in names
    ]
    top = max(v for row in shares for v in row if v == v)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=top)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    for i, row in enumerate(shares):
        for j, value in enumerate(row):
            if value == value and round(value):
                colour = "white" if value > 0.6 * top else "#333333"
                axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_title("Selected together")
    figure.colorbar(
        image,
        ax=axes,
        shrink=0.7,
        label="questions of the row's expert that have the column's too (%)",
    ).outline.set_visible(False)  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
    return True


def _over_time(figure: Figure, summary: Summary, drift: Compared | None) -> bool:
    """The median of the confidence over time, and the band between its 10% and 90% quantiles."""
    found = summary.confidence
    if not found:
        return False
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    figure.set_size_inches(8, 3.6)
    axes = figure.subplots()
    middle = [date2num(datetime.fromtimestamp(s.start + s.seconds / 2, UTC)) for s in found]
    axes.fill_between(
        middle, [s.low for s in found], [s.high for s in found], color=LIGHT, linewidth=0,
        label="10% to 90% of questions",
    )  # fmt: skip
    axes.plot(middle, [s.median for s in found], color=DARK, marker="o", ms=3.5, label="median")
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.set(ylim=(0, 1.03), ylabel="routing confidence", xlabel="time (UTC)")
    axes.set_title("Confidence over time")
    _grid(axes, "y")
    axes.legend(loc="best", frameon=False)
    return True


def _distribution(figure: Figure, summary: Summary, drift: Compared | None) -> bool:
    """The log's questions in the bins of the reference, a panel per sort."""
    if drift is None or not drift.drifts:
        return False
    panels = len(drift.drifts)
    columns = min(panels, 2)
    rows = -(-panels // columns)
    figure.set_size_inches(4.8 * columns, 3.2 * rows + 0.6)
    grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, one in zip(grid, drift.drifts, strict=False):
        _bins(axes, one)
    for axes in grid[panels:]:
        axes.set_visible(False)
    grid[0].legend(loc="upper left", frameon=False)
    figure.suptitle(
        "Confidence against the calibration set", x=0.01, ha="left", fontsize=12, weight="bold"
    )
    figure.supxlabel("routing confidence, in the bins of the calibration set", fontsize=10)
    figure.supylabel("share of questions (%)", fontsize=10)
    return True


def _bins(axes: Axes, one: Drift) -> None:
    """Bars for the log, and a mark on each for the reference."""
    names = [name.replace(">=", "≥") for name in one.confidence.shares]
    places = range(len(names))
    axes.bar(
        places, [100 * share for share in one.confidence.shares.values()], color=DARK, width=0.8,
        label="this log",
    )  # fmt: skip
    axes.hlines(
        [100 * share for share in one.confidence.reference.values()],
        [place - 0.45 for place in places], [place + 0.45 for place in places],
        color=OTHER, linewidth=2.5, label="calibration set",
    )  # fmt: skip
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.set_title(_panel_title(one), fontsize=10)
    axes.margins(y=0.18)
    _grid(axes, "y")


def _panel_title(one: Drift) -> str:
    asked = {
        "input": "input alone", "choices": "with choices", "instruction": "with an instruction",
        "all": "with both",
    }  # fmt: skip
    shift = one.confidence
    return f"{asked.get(one.sees, one.sees)}, n = {one.count}: {shift.reading}, PSI {shift.psi:.2f}"


def _grid(axes: Axes, axis: Any) -> None:
    axes.grid(axis=axis, color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)


PLOTS: dict[str, Draw] = {
    "usage": _usage,
    "together": _together,
    "confidence": _over_time,
    "distribution": _distribution,
}
"""File name -> what draws it; False where there is nothing to draw."""
