"""`python -m benchmarks.quality`: measure the comparison and write its report.

Without --aside it asks test files, and with nothing else narrowed it writes docs/quality.md and
benchmarks/results/quality.json; a narrower run writes the same below benchmarks/.cache/quality.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from benchmarks.places import DATA, LIBRARY
from benchmarks.quality.conditions import CONDITIONS, Condition
from benchmarks.quality.making import make_experts
from benchmarks.quality.parts import ASIDE_HELD, TEST_HELD, Held, QualityError
from benchmarks.quality.quick import QUICK, check
from benchmarks.quality.report import write_report
from benchmarks.quality.rows import COMPARISON, Row
from benchmarks.quality.run import Found, Order, run
from benchmarks.quality.tables import percent
from benchmarks.quality.workbench import WORK, Places, open_bench
from experts.errors import ExpertError


def main() -> None:
    """Run what the command line asks for."""
    parser = _parser()
    given = parser.parse_args()
    logging.disable_progress_bar()
    notes, out = Console(stderr=True), Console()
    try:
        order = _order(given)
        places = Places(given.data, given.library, work=given.work, threads=given.threads)
        with notes.status("opening the library") as status:
            make_experts(places, order.rows, status.update)
            bench = open_bench(places, status.update)
        start = time.monotonic()
        found = run(bench, order)
        minutes = (time.monotonic() - start) / 60
        folder = None if order.is_whole and not given.out else given.out or _folder(given)
        written = write_report(found, folder)
        for table in _tables(found):
            out.print(table)
        notes.print(f"{found.measured:,} questions asked anew in {minutes:.1f} min")
        notes.print(f"written: {written[0]}", soft_wrap=True)
        if given.quick and (faults := check(found, accept=given.accept)):
            parser.exit(1, "".join(f"Error: {fault}\n" for fault in faults))
    except ExpertError as error:
        parser.exit(1, f"Error: {error.message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="holds held_in and held_out")
    parser.add_argument("--library", type=Path, default=LIBRARY)
    parser.add_argument("--quick", action="store_true", help="a few minutes, against margins")
    parser.add_argument("--accept", action="store_true", help="with --quick: these are the margins")
    parser.add_argument("--aside", action="store_true", help="ask examples set aside, not tests")
    parser.add_argument("--held", type=_names, help="in,out; with --aside: in,left")
    parser.add_argument("--rows", type=_names, help=f"of {', '.join(r.name for r in COMPARISON)}")
    parser.add_argument("--conditions", type=_names, help=f"of {', '.join(CONDITIONS)}")
    parser.add_argument("--limit", type=int, help="examples per task")
    parser.add_argument("--again", type=_names, default=(), help="rows to measure anew")
    parser.add_argument("--no-time", action="store_true", help="don't measure time per input")
    parser.add_argument(
        "--no-studies",
        action="store_true",
        help="no variants of the default, no accuracy against K",
    )
    parser.add_argument("--threads", type=int, default=0, help="cores; 0 for all")
    parser.add_argument("--work", type=Path, default=WORK, help="scratch library and cells")
    parser.add_argument("--out", type=Path, help="folder for page, pictures and figures")
    return parser


def _order(given: argparse.Namespace) -> Order:
    """What the options ask for.

    Raises:
        QualityError: they name what is not there.
    """
    if given.quick:
        return QUICK
    if given.accept:
        raise QualityError("--accept goes with --quick.")
    rows = _pick(given.rows, {row.name: row for row in COMPARISON}, "--rows")
    conditions = _pick(given.conditions, {c: c for c in CONDITIONS}, "--conditions")
    held = given.held or (ASIDE_HELD if given.aside else TEST_HELD)
    _pick(held, {h: h for h in get_args(Held)}, "--held")
    _pick(given.again, {row.name: row for row in COMPARISON}, "--again")
    order = Order(tuple(rows), cast("tuple[Condition, ...]", tuple(conditions)), tuple(held))
    return replace(
        order, aside=given.aside, limit=given.limit, again=frozenset(given.again),
        timed=not given.no_time, studies=not given.no_studies,
    )  # fmt: skip


def _pick(names: tuple[str, ...] | None, known: dict[str, object], option: str) -> list[Row]:
    if names is None:
        return list(known.values())
    if unknown := sorted(set(names) - known.keys()):
        raise QualityError(f"{option} {','.join(unknown)}: there are {', '.join(known)}.")
    return [value for name, value in known.items() if name in names]


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _folder(given: argparse.Namespace) -> Path:
    kind = "quick" if given.quick else "aside" if given.aside else "test"
    return given.work / "reports" / kind


def _tables(found: Found) -> Iterator[Table]:
    """The means of a run, for the terminal: a table for each group of tasks."""
    summary, conditions = found.summary, found.order.conditions
    for group in summary.groups:
        table = Table("row", *conditions, title=group.title, title_justify="left")
        for row in summary.rows:
            means = [summary.mean(row, group, condition) for condition in conditions]
            table.add_row(row.title, *[percent(getattr(m, "mean", m)) for m in means])
        yield table


if __name__ == "__main__":
    main()
