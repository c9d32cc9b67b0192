"""`sailplane evaluate`: how well routers answer.

Either on task folders, through the serving engine, or by what callers said of a server's answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.progress import Progress
from rich.table import Table

from server.cli.common import BAD_USAGE, busy, fail, notes, out
from server.cli.log import accuracy_cells
from server.cli.options import with_settings
from server.cli.train import Cards, Only
from server.settings import Origins

if TYPE_CHECKING:
    from experts.manifest import TaskCard
    from experts.training.data import Task
    from server.evaluate import Accuracies
    from server.evidence.scoring import Score

Sees = Literal["input", "choices", "instruction", "reworded"]
Looks = Annotated[
    Sees, typer.Option(help="What routers may look at; of texts to write there are no choices.")
]
ROUTERS = "default,glider,dam,retrieval,average,base,oracle"


@with_settings("backbone", "embedder", "library", "threads")
def evaluate(
    origins: Origins,
    tasks: Annotated[Path | None, typer.Option(help="Folder of task folders (test.jsonl).")] = None,
    log: Annotated[
        Path | None,
        typer.Option(help="A routing log with feedback, in the place of --tasks; asks no router."),
    ] = None,
    router: Annotated[str, typer.Option(help="Routers to compare.", metavar="A,B,...")] = ROUTERS,
    sees: Looks = "choices",
    limit: Annotated[int | None, typer.Option(min=1, help="Questions per task.")] = None,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    cards: Cards = Path("library/tasks"),
    only: Only = "",
    record: Annotated[
        bool, typer.Option("--record", help="Note base and oracle in the experts' manifests.")
    ] = False,
) -> None:
    """Compare routers; `default` is the one `serve` uses, `oracle` the task's own expert.

    A text that is to be written counts where greedy decoding writes it exactly.
    """
    if tasks is None:
        if log is None:
            raise fail("--tasks or --log: expected one of them", BAD_USAGE)
        _score(log, as_json)
        return
    if log is not None:
        raise fail("--tasks and --log: expected one of them, not both", BAD_USAGE)
    from experts.training.build import read_cards  # imports torch: not before --help
    from experts.training.data import read_tasks
    from server.build import build_engine
    from server.evaluate import ORACLE, measure, record_scores

    routers = router.split(",")
    with busy("Loading backbone and library") as told:
        engine = build_engine(origins.settings, progress=told)
    unknown = sorted(set(routers) - {*engine.presets, ORACLE})
    if unknown:
        raise fail(f"unknown router: {', '.join(unknown)}; there are {', '.join(engine.presets)}")
    known = {**read_cards(cards), **{i: e.manifest for i, e in engine.library.entries.items()}}
    folders = read_tasks(tasks, [name for name in only.split(",") if name])
    _note_unsaid(folders, sees, known)
    with Progress(console=notes) as bars:
        bar = bars.add_task(f"{len(folders)} tasks", total=len(folders) * len(routers))
        result = measure(engine, folders, routers, sees, known, limit, lambda _: bars.advance(bar))
    if record:
        record_scores(engine.library, result, sees, _written(folders))
    if as_json:
        as_json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    out.print(_table(result, routers, sees))


def _note_unsaid(tasks: Sequence[Task], sees: Sees, cards: Mapping[str, TaskCard]) -> None:
    """Say of which tasks no instruction is known that evaluation could ask with."""
    cards_of = [(task.name, cards.get(task.name)) for task in tasks]
    unsaid = [name for name, card in cards_of if card is None or not card.instruction_unseen]
    if sees == "instruction" and unsaid:
        notes.print(
            f"By the input alone, for want of an instruction_unseen: {', '.join(unsaid)}",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _written(tasks: Sequence[Task]) -> set[str]:
    """Names of the tasks whose test answers are to be written."""
    return {task.name for task in tasks if all(e.is_written for e in task.test)}


def _score(path: Path, as_json: Path | None) -> None:
    """Score the routers of a log on its feedback."""
    from server.evidence.reader import read_log
    from server.evidence.scoring import score

    with busy(f"Reading {path}"):
        found = read_log(path)
    if not found.feedback.joined:
        raise fail(f"{path}: no answer with feedback; callers give it at POST /v1/feedback")
    scores = score(found.rows)
    if as_json:
        as_json.write_text(json.dumps(asdict(scores), indent=1) + "\n", "utf-8")
    out.print(_scores("router", scores.routers))
    out.print(_scores("expert", scores.experts))


def _scores(what: str, scores: Sequence[Score]) -> Table:
    """Accuracy, and how sure the answers were; ECE is the expected calibration error of that."""
    table = Table(
        what, "questions", "judged", "right", "95%", "answer's probability", "ECE",
        "routing confidence", title=f"Feedback by {what}",
    )  # fmt: skip
    for one in scores:
        means = (one.confidence, one.error, one.routing)
        cells = ["-" if value is None else f"{value:.3f}" for value in means]
        table.add_row(one.name, str(one.questions), *accuracy_cells(one.accuracy), *cells)
    return table


def _table(result: Accuracies, routers: list[str], sees: str) -> Table:
    table = Table("task", *routers, title=f"Accuracy, routers see {sees}")

    def cells(row: dict[str, float | None]) -> list[str]:
        return ["-" if (v := row[r]) is None else f"{100 * v:.1f}" for r in routers]

    for task, row in result["tasks"].items():
        table.add_row(task, *cells(row))
    table.add_section()
    table.add_row("mean", *cells(result["means"]))
    return table
