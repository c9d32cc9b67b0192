"""`python -m benchmarks.continual`: train the streams, ask all rows, and write what was found.

Experts and cells are kept below `benchmarks/.cache/continual`, and an interrupted run goes on where
it was. What a setting found is a file in `benchmarks/results/continual`, and the report is of all
that are there: a run of some streams, kinds or seeds keeps the others. A run of some rows, or one
that asks examples set aside (--aside, --quick), writes below the cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from benchmarks.continual.constants import make_constants, place_of
from benchmarks.continual.page import write_page
from benchmarks.continual.plan import DATA, RANKS, SEEDS, STREAMS, Plan, chosen, quick
from benchmarks.continual.plots import draw
from benchmarks.continual.records import kept
from benchmarks.continual.report import figures, write
from benchmarks.continual.rows import ROWS
from benchmarks.continual.run import run_setting
from benchmarks.places import DOCS, RESULTS
from experts.errors import ExpertError
from experts.training.recipe import Retention
from server.cli.jobs import run_jobs


def main() -> None:
    """Run what the command line asks for."""
    parser = _parser()
    given = parser.parse_args()
    logging.disable_progress_bar()
    try:
        plan = _plan(given)
        names = [setting.name for setting in plan.settings]
        run_jobs(make_constants, plan.streams, given.workers, plan.model_dump_json())
        run_jobs(run_setting, names, given.workers, plan.model_dump_json())
    except ValueError as error:
        parser.error(str(error))
    except ExpertError as error:
        parser.exit(1, f"Error: {error.message}\n")
    results, documents = (RESULTS, DOCS) if plan.is_reported else (plan.report, plan.report)
    constants = {s.stream: place_of(plan, s.stream).name for s in plan.shown_settings}
    found = figures(kept(plan.records, plan.numbers, plan.shown_settings, constants))
    path, pictures = write(found, results), draw(found, documents)
    page = write_page(found, pictures, documents)
    Console().print(_table(found))
    written = ", ".join(map(str, (page, path, *pictures)))
    Console(stderr=True).print(f"written: {written}", soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.continual", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="holds held_in and held_out")
    parser.add_argument("--quick", action="store_true", help="little of everything: does it run?")
    parser.add_argument("--aside", action="store_true", help="ask examples set aside, not tests")
    parser.add_argument("--streams", type=_names, default=(), help=f"of {', '.join(STREAMS)}")
    parser.add_argument("--kinds", type=_names, default=(), help=f"of {', '.join(RANKS)}")
    parser.add_argument("--rows", type=_names, default=(), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--again", type=_names, default=(), help="rows to ask anew")
    parser.add_argument("--seeds", type=_names, default=(), help=f"of {', '.join(map(str, SEEDS))}")
    parser.add_argument("--ewc", type=float, help="EWC's strength; choose it with --aside")
    parser.add_argument("--limit", type=int, help="questions a task")
    parser.add_argument("--workers", type=int, default=2, help="settings at a time, a core each")
    return parser


def _plan(given: argparse.Namespace) -> Plan:
    """What the options ask for.

    Raises:
        ValueError: they name what is not there.
    """
    plan = Plan(
        data=given.data,
        streams=chosen(given.streams, tuple(STREAMS), "stream"),
        kinds=chosen(given.kinds, tuple(RANKS), "kind"),
        rows=chosen(given.rows, tuple(ROWS), "row") if given.rows else (),
        again=chosen(given.again, tuple(ROWS), "row") if given.again else (),
        seeds=tuple(map(int, chosen(given.seeds, tuple(map(str, SEEDS)), "seed"))),
        aside=given.aside,
        limit=given.limit,
        retention=Retention() if given.ewc is None else Retention(ewc=given.ewc),
    )
    return quick(plan) if given.quick else plan


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _table(found: dict) -> Table:  # pyright: ignore[reportMissingTypeArgument]
    """Final accuracy and forgetting of every row."""
    heads = [(stream, kind) for stream, kinds in found["rows"].items() for kind in kinds]
    table = Table("row", *[f"{stream}\n{kind}" for stream, kind in heads])
    for name, row in ROWS.items():
        cells: list[str] = []
        for stream, kind in heads:
            figure = found["rows"][stream][kind].get(name)
            if figure is None:
                continue
            lost = f" ({figure['forgetting']:+.1f})" if "forgetting" in figure else ""
            cells.append(f"{figure['final']:.1f}{lost}")
        if cells:
            table.add_row(row.title, *cells)
    return table


if __name__ == "__main__":
    main()
