"""`sailplane train`: one expert per task folder, or one of all of them, into a library.

Interrupted, it goes on where it was: an expert that the library has from the same recipe is not
trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from server.cli.common import BAD_USAGE, busy, fail, notes
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
    together: Annotated[
        str | None, typer.Option(help="Train one expert of this id on all the tasks.", metavar="ID")
    ] = None,
    kind: Annotated[str, typer.Option(help="lora or bottleneck.")] = "lora",
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank, or the bottleneck's width.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training examples.")] = 3,
) -> None:
    """Train one expert per task. 15% of each train file is set aside for calibration."""
    from experts.backbones import open_backbone  # imports torch: not before --help
    from experts.library import Library
    from experts.training.build import card_of_all, is_trained
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
    experts = {task.name: [task] for task in wanted}
    if together is not None:
        card_of_all(together, wanted)  # its id is checked now, not after the training
        if together in {task.name for task in read_tasks(tasks)}:
            raise fail(f"--together {together}: a task has this name; expected another", BAD_USAGE)
        experts = {together: wanted}
    todo = [id for id, of in experts.items() if not is_trained(library, id, of, recipe)]
    notes.print(f"{len(experts) - len(todo)} of {len(experts)} experts are trained already.")
    if todo:
        names = {id: [task.name for task in of] for id, of in experts.items()}
        run_jobs(_train_one, todo, workers, settings.backbone, settings.library, tasks, cards,
                 recipe.model_dump_json(), names)  # fmt: skip
    if together is None:
        notes.print(f"Next: sailplane fit --tasks {tasks} --calibrate")


def _train_one(
    id: str, backbone: str, library: Path, tasks: Path, cards: Path, recipe: str,
    names: Mapping[str, Sequence[str]], report: Report,
) -> None:  # fmt: skip
    """One expert, in a process of its own."""
    from experts.backbones import open_backbone
    from experts.training.build import read_cards, train_tasks
    from experts.training.data import Task
    from experts.training.recipe import Recipe

    own = [Task(tasks / name) for name in names[id]]
    train_tasks(
        open_backbone(backbone), library, id, own, read_cards(cards),
        Recipe.model_validate_json(recipe), report,
    )  # fmt: skip
