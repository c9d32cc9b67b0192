"""`sailplane train`: one expert per task folder, or one of all of them, into a library.

The tasks are trained side by side, each afresh, or as a stream (`server.cli.stream`).

Interrupted, it goes on where it was: an expert that the library has from the same recipe is not
trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.common import BAD_USAGE, busy, fail, notes
from server.cli.jobs import Report, run_jobs
from server.cli.options import with_settings
from server.settings import COMMAND_LINE, Origins, Settings

if TYPE_CHECKING:
    from experts.training.recipe import Recipe

Tasks = Annotated[Path, typer.Option(help="Folder of task folders (task.json, train.jsonl).")]
Cards = Annotated[Path, typer.Option(help="Folder of task cards: wordings and instructions.")]
Only = Annotated[str, typer.Option(help="Only these tasks.", metavar="A,B,...")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Tasks at the same time, one core each; 2 by default.")
]
WORKERS = 2
Together = Annotated[
    str | None, typer.Option(help="Train one expert of this id on all the tasks.", metavar="ID")
]
Continual = Annotated[
    bool,
    typer.Option(
        "--continual",
        help="A stream in the order of --only: each expert starts from the one before.",
    ),
]
Gates = Annotated[
    bool, typer.Option("--gates", help="With --continual: fit gates too, for token routing.")
]
Server = Annotated[
    str | None,
    typer.Option(
        help="With --continual: a running server that each expert joins when it is made; "
        "--library must lie below its --adapter-root.",
        metavar="URL",
    ),
]


@with_settings("backbone", "embedder", "library")
def train(
    origins: Origins,
    tasks: Tasks,
    cards: Cards = Path("library/tasks"),
    only: Only = "",
    workers: Workers = None,
    together: Together = None,
    continual: Continual = False,
    gates: Gates = False,
    server: Server = None,
    kind: Annotated[str, typer.Option(help="lora or bottleneck.")] = "lora",
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank, or the bottleneck's width.")] = 8,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training examples.")] = 3,
    examples: Annotated[
        int | None, typer.Option(min=1, help="At most so many training examples a task.")
    ] = None,
) -> None:
    """Train one expert per task. 15% of each train file is set aside for calibration."""
    from experts.entries import require_id  # imports torch: not before --help
    from experts.training.data import read_tasks
    from experts.training.recipe import Recipe
    from server.cli.stream import train_stream

    _require_one_way(
        continual=continual, alone={"--gates": gates, "--server": server},
        beside={"--together": together, "--workers": workers},
    )  # fmt: skip
    settings, names = origins.settings, [name for name in only.split(",") if name]
    recipe = Recipe(kind=kind, rank=rank, epochs=epochs, examples=examples)
    wanted = read_tasks(tasks, names)
    if continual:
        place = {name: i for i, name in enumerate(names)}
        ordered = sorted(wanted, key=lambda task: place.get(task.name, 0))
        train_stream(settings, ordered, cards, recipe, gates=gates, server=server)
        return
    experts = {task.name: [task.name] for task in wanted}
    if together is not None:
        if together in {task.name for task in read_tasks(tasks)}:
            raise fail(f"--together {together}: a task has this name; expected another", BAD_USAGE)
        experts = {require_id(together): [task.name for task in wanted]}
    _train_side_by_side(settings, experts, tasks, cards, recipe, workers or WORKERS)
    if together is None:
        notes.print(f"Next: sailplane fit --tasks {tasks} --calibrate{_places(origins)}",
                    markup=False, highlight=False, soft_wrap=True)  # fmt: skip


def _places(origins: Origins) -> str:
    """The options that say which library this is, as far as they were given."""
    named = {"backbone": origins.settings.backbone, "embedder": origins.settings.embedder,
             "library": origins.settings.library}  # fmt: skip
    given = (name for name in named if origins.of[name] == COMMAND_LINE)
    return "".join(f" --{name} {named[name]}" for name in given)


def _require_one_way(
    *, continual: bool, alone: Mapping[str, object], beside: Mapping[str, object]
) -> None:
    """Refuse options that have no effect: of a stream alone, and of trainings side by side."""
    for option, given in (beside if continual else alone).items():
        if given in (None, False):
            continue
        if continual:
            raise fail(f"{option} and --continual: expected one of them, not both", BAD_USAGE)
        raise fail(f"{option}: expected --continual with it", BAD_USAGE)


def _train_side_by_side(
    settings: Settings, experts: Mapping[str, Sequence[str]], tasks: Path, cards: Path,
    recipe: Recipe, workers: int,
) -> None:  # fmt: skip
    """Train what the library has not: experts of these tasks, by id."""
    from experts.backbones import open_backbone
    from experts.library import Library
    from experts.training.build import is_trained
    from experts.training.data import Task

    backbone = open_backbone(settings.backbone)
    with busy(f"Reading library {settings.library}") as told:
        library = Library.open(
            settings.library, fingerprint=backbone.fingerprint, backbone_id=backbone.id,
            progress=told,
        )  # fmt: skip
    own = {id: [Task(tasks / name) for name in names] for id, names in experts.items()}
    todo = [id for id, of in own.items() if not is_trained(library, id, of, recipe)]
    notes.print(f"{len(experts) - len(todo)} of {len(experts)} experts are trained already.")
    if todo:
        run_jobs(_train_one, todo, workers, settings.backbone, settings.library, tasks, cards,
                 recipe.model_dump_json(), experts)  # fmt: skip


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
