"""`sailplane train`: one expert per task folder, into a library.

Interrupted, it goes on where it was: an expert that the library has from the same recipe is not
trained again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.common import busy, notes
from server.cli.jobs import Report, run_jobs
from server.cli.options import with_settings
from server.settings import Origins

Tasks = Annotated[Path, typer.Option(help="Folder of task folders (task.json, train.jsonl.gz).")]
Cards = Annotated[Path, typer.Option(help="Folder of task cards: wordings and instructions.")]
Only = Annotated[str, typer.Option(help="Only these tasks.", metavar="A,B,...")]
Workers = Annotated[int, typer.Option(min=1, help="Tasks at the same time, one core each.")]


@with_settings("backbone", "library")
def train(
    origins: Origins,
    tasks: Tasks,
    cards: Cards = Path("library/tasks"),
    only: Only = "",
    workers: Workers = 2,
    kind: Annotated[str, typer.Option(help="lora or bottleneck.")] = "lora",
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank, or the bottleneck's width.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training examples.")] = 3,
) -> None:
    """Train one expert per task. 15% of each train file is set aside for calibration."""
    from experts.backbones import open_backbone  # imports torch: not before --help
    from experts.library import Library
    from experts.training.build import is_trained
    from experts.training.data import read_tasks
    from experts.training.recipe import Recipe

    settings = origins.settings
    recipe = Recipe(kind=kind, rank=rank, epochs=epochs)
    backbone = open_backbone(settings.backbone)
    with busy(f"Reading library {settings.library}") as told:
        library = Library.open(
            settings.library, fingerprint=backbone.fingerprint, backbone_id=backbone.id,
            progress=told,
        )  # fmt: skip
    wanted = read_tasks(tasks, [name for name in only.split(",") if name])
    todo = [t.name for t in wanted if not is_trained(library, t, recipe)]
    notes.print(f"{len(wanted) - len(todo)} of {len(wanted)} experts are trained already.")
    if todo:
        run_jobs(_train_one, todo, workers, settings.backbone, settings.library, tasks, cards,
                 recipe.model_dump_json())  # fmt: skip
    notes.print(f"Next: sailplane fit --tasks {tasks} --calibrate")


def _train_one(
    name: str, backbone: str, library: Path, tasks: Path, cards: Path, recipe: str, report: Report
) -> None:
    """One task, in a process of its own."""
    from experts.backbones import open_backbone
    from experts.training.build import read_cards, train_task
    from experts.training.data import Task
    from experts.training.recipe import Recipe

    train_task(
        open_backbone(backbone), library, Task(tasks / name), read_cards(cards),
        Recipe.model_validate_json(recipe), report,
    )  # fmt: skip
