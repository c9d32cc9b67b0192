"""`sailplane log`: what a routing log shows, as tables, as JSON or as plots.

Runs no engine and reads no expert.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from server.cli.common import busy, fail, notes, out
from server.cli.options import with_settings
from server.settings import Origins

if TYPE_CHECKING:
    from server.evidence.drift import Compared, Shift
    from server.evidence.figures import Accuracy
    from server.evidence.summary import Judged, Span, Stretch, Summary, Usage

SHOWN = 12  # rows of a long table; all of them are in --json


@with_settings("library")
def log(
    origins: Origins,
    path: Annotated[Path, typer.Argument(help="The routing log.", metavar="PATH")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Folder to write plots into.", metavar="DIR")
    ] = None,
) -> None:
    """Show a routing log: usage, co-selection, confidence, accuracy, latency, drift."""
    from server.evidence.drift import compare, read_calibration
    from server.evidence.reader import read_log
    from server.evidence.summary import summarise

    with busy(f"Reading {path}"):
        found = read_log(path)
    if not found.rows:
        raise fail(f"{path}: no line of a routing log ({found.skipped} other lines)")
    summary = summarise(found)
    calibration = read_calibration(origins.settings.library)
    drift = compare(found.rows, calibration) if calibration and calibration.reference else None
    if plots:
        _plot(plots, summary, drift)
    if as_json:
        _dump(summary, drift)
    else:
        _show(summary, drift, origins.settings.library)


def _plot(folder: Path, summary: Summary, drift: Compared | None) -> None:
    from server.evidence.plots import MissingPlots, write_plots

    try:
        for path in write_plots(folder, summary, drift):
            notes.print(f"{path}", soft_wrap=True)
    except MissingPlots as error:
        raise fail(str(error)) from error


def _dump(summary: Summary, drift: Compared | None) -> None:
    out.print_json(json.dumps({**asdict(summary), "drift": asdict(drift) if drift else None}))


def _show(summary: Summary, drift: Compared | None, library: Path) -> None:
    _show_span(summary.span)
    out.print(_usage(summary.usage))
    if summary.pairs:
        table = Table("experts", "questions", "share", title="Most often together")
        for pair in summary.pairs[:SHOWN]:
            table.add_row(" + ".join(pair.experts), str(pair.count), _percent(pair.share))
        out.print(table)
    if summary.confidence:
        out.print(_over_time(summary.confidence))
    for what, judged in (
        ("router", summary.by_router),
        ("expert", summary.by_expert),
        ("confidence", summary.by_confidence),
    ):
        if judged:
            out.print(_judged(what, judged))
    out.print(_faults(summary))
    out.print(_latency(summary.latency_ms))
    _show_drift(drift, library)


def _show_span(span: Span) -> None:
    begins, ends = (_when(t) for t in (span.begins or 0.0, span.ends or 0.0))
    files = f"{span.files} file{'s' if span.files > 1 else ''}"
    out.print(f"[bold]{span.questions} questions[/] from {begins} to {ends} UTC, in {files}")
    told = span.feedback
    if told.lines:
        out.print(
            f"{told.lines} lines of feedback: {told.joined} answers judged, "
            f"{told.unmatched} not in the log, {told.unanswered} without an answer"
        )
    if span.skipped:
        out.print(f"[yellow]{span.skipped} lines could not be read[/]")


def _usage(usage: Sequence[Usage]) -> Table:
    table = Table("expert", "questions", "share", "mean weight", "first", title="Usage")
    for use in usage[:SHOWN]:
        table.add_row(
            use.expert, str(use.count), _percent(use.share), f"{use.mean_weight:.2f}",
            _percent(use.first_share),
        )  # fmt: skip
    _more(table, len(usage))
    return table


def _over_time(stretches: Sequence[Stretch]) -> Table:
    table = Table(
        "from (UTC)", "questions", "10%", "median", "90%",
        title=f"Routing confidence, every {_length(stretches[0].seconds)}",
    )  # fmt: skip
    for one in stretches:
        cells = [f"{value:.3f}" for value in (one.low, one.median, one.high)]
        table.add_row(_when(one.start), str(one.count), *cells)
    return table


def _judged(what: str, judged: Sequence[Judged]) -> Table:
    table = Table(what, "questions", "judged", "right", "95%", title=f"Accuracy by {what}")
    for one in judged[:SHOWN]:
        table.add_row(one.key, str(one.questions), *accuracy_cells(one.accuracy))
    _more(table, len(judged))
    return table


def accuracy_cells(accuracy: Accuracy) -> list[str]:
    """How many answers have feedback, the share that is right, and its interval."""
    if accuracy.share is None or accuracy.low is None or accuracy.high is None:
        return ["0", "-", "-"]
    interval = f"{_percent(accuracy.low)} - {_percent(accuracy.high)}"
    return [str(accuracy.judged), _percent(accuracy.share), interval]


def _faults(summary: Summary) -> Table:
    table = Table("what", "questions", title="Not as wished")
    for code, count in summary.fallbacks.items():
        table.add_row(f"fallback: {code}", str(count))
    for id, count in summary.replaced.items():
        table.add_row(f"replaced, could not be loaded: {id}", str(count))
    table.add_row("narrowed", str(summary.narrowed))
    return table


def _latency(latency: Mapping[str, float]) -> Table:
    table = Table(*latency, title="Latency of whole requests, in ms")
    table.add_row(*(f"{value:.1f}" for value in latency.values()))
    return table


def _show_drift(drift: Compared | None, library: Path) -> None:
    if drift is None:
        out.print(
            f"No drift: {library} has no reference. "
            "Note one with `sailplane fit --tasks DIR --reference`.",
            soft_wrap=True,
        )
        return
    table = Table(
        "router sees", "questions", "confidence", "PSI", "KS", "experts", "PSI",
        title=f"Drift against the set-aside questions of calibration {drift.calibration}",
    )  # fmt: skip
    for one in drift.drifts:
        moved = one.confidence.reading in ("shifting", "drifted")
        table.add_row(
            one.sees, str(one.count),
            f"{_reading(one.confidence)}{f' ({one.tends})' if moved else ''}",
            _psi(one.confidence),
            f"{one.ks:.3f}", _reading(one.experts), _psi(one.experts),
        )  # fmt: skip
    out.print(table)
    if drift.left_out:
        out.print(f"{drift.left_out} questions are of another router, or another calibration.")


def _psi(shift: Shift) -> str:
    return f"{shift.psi:.3f} (chance {shift.chance:.3f})"


def _reading(shift: Shift) -> str:
    colour = {"stable": "green", "shifting": "yellow", "drifted": "red"}.get(shift.reading, "dim")
    return f"[{colour}]{shift.reading}[/]"


def _more(table: Table, count: int) -> None:
    if count > SHOWN:
        table.caption = f"and {count - SHOWN} more"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _when(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}"


def _length(seconds: int) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds % size == 0:
            count = seconds // size
            return unit if count == 1 else f"{count} {unit}s"
    return "second" if seconds == 1 else f"{seconds} seconds"
