"""`sailplane evaluate`: how well routers answer, on task folders, through the serving engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import Progress
from rich.table import Table

from server.cli.common import fail, notes, out, progress
from server.cli.options import with_settings
from server.cli.train import Cards, Only
from server.settings import Origins

if TYPE_CHECKING:
    from server.evaluate import Accuracies

Sees = Literal["input", "choices", "instruction", "reworded"]
ROUTERS = "default,glider,dam,retrieval,average,base,oracle"


@with_settings("backbone", "embedder", "library", "threads")
def evaluate(
    origins: Origins,
    tasks: Annotated[Path, typer.Option(help="Folder of task folders (test.jsonl.gz).")],
    router: Annotated[str, typer.Option(help="Routers to compare.", metavar="A,B,...")] = ROUTERS,
    sees: Annotated[Sees, typer.Option(help="What routers may look at.")] = "choices",
    limit: Annotated[int | None, typer.Option(min=1, help="Questions per task.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    cards: Cards = Path("library/tasks"),
    only: Only = "",
    record: Annotated[
        bool, typer.Option("--record", help="Note base and oracle in the experts' manifests.")
    ] = False,
) -> None:
    """Compare routers; `default` is the one `serve` uses, `oracle` the task's own expert."""
    from experts.training.build import read_cards  # imports torch: not before --help
    from experts.training.data import read_tasks
    from server.build import build_engine
    from server.evaluate import ORACLE, measure, record_scores

    routers = router.split(",")
    engine = build_engine(origins.settings, bar=progress)
    unknown = sorted(set(routers) - {*engine.presets, ORACLE})
    if unknown:
        raise fail(f"unknown router: {', '.join(unknown)}; there are {', '.join(engine.presets)}")
    known = {**read_cards(cards), **{i: e.manifest for i, e in engine.library.entries.items()}}
    folders = read_tasks(tasks, [name for name in only.split(",") if name])
    with Progress(console=notes) as bars:
        bar = bars.add_task(f"{len(folders)} tasks", total=len(folders) * len(routers))
        result = measure(engine, folders, routers, sees, known, limit, lambda _: bars.advance(bar))
    if record:
        record_scores(engine.library, result, sees)
    if as_json:
        as_json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    out.print(_table(result, routers, sees))


def _table(result: Accuracies, routers: list[str], sees: str) -> Table:
    table = Table("task", *routers, title=f"Accuracy, routers see {sees}")

    def cells(row: dict[str, float | None]) -> list[str]:
        return ["-" if (v := row[r]) is None else f"{100 * v:.1f}" for r in routers]

    for task, row in result["tasks"].items():
        table.add_row(task, *cells(row))
    table.add_section()
    table.add_row("mean", *cells(result["means"]))
    return table
