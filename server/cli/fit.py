"""`sailplane fit`: routing artefacts for experts, and with --calibrate a library's constants."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.cli.common import bar, busy, fail, notes
from server.cli.jobs import Report, run_jobs
from server.cli.options import with_settings
from server.cli.train import WORKERS, Cards, Only, Tasks, Workers
from server.settings import Origins, Settings

if TYPE_CHECKING:
    from experts.training.data import Task
    from routers.calibration import Calibration, Reference
    from server.engine.run import Engine


@with_settings("backbone", "embedder", "library")
def fit(
    origins: Origins,
    tasks: Tasks,
    cards: Cards = Path("library/tasks"),
    only: Only = "",
    workers: Workers = None,
    again: Annotated[bool, typer.Option("--again", help="Fit also what is fitted.")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Then set the library's constants.")
    ] = False,
    reference: Annotated[
        bool,
        typer.Option(
            "--reference",
            help="Then note anew how set-aside questions are routed; the constants stay.",
        ),
    ] = False,
) -> None:
    """Compute each expert's instructions, centroids, gates and prototypes from its examples."""
    from experts.backbones import open_backbone  # imports torch: not before --help
    from experts.embedder import open_embedder
    from experts.library import Library
    from experts.training.data import read_tasks
    from routers.fitting.build import is_fitted

    settings = origins.settings
    backbone = open_backbone(settings.backbone)
    embedder = open_embedder(settings.embedder, backbone, backbone_name=settings.backbone)
    with busy(f"Reading library {settings.library}") as told:
        library = Library.open(
            settings.library, fingerprint=backbone.fingerprint, backbone_id=backbone.id,
            progress=told,
        )  # fmt: skip
    wanted = read_tasks(tasks, [name for name in only.split(",") if name])
    mine = [t for t in wanted if t.name in library.entries]
    todo = [t.name for t in mine if again or not is_fitted(library.get(t.name), embedder)]
    notes.print(f"{len(mine) - len(todo)} of {len(mine)} experts are fitted already.")
    if todo:
        run_jobs(_fit_one, todo, workers or WORKERS, settings.backbone, settings.embedder,
                 settings.library, tasks, cards)  # fmt: skip
    if calibrate:
        _calibrate(settings, mine)
    elif reference:
        _note_reference(settings, mine)


def _fit_one(
    name: str, backbone: str, embedder: str, library: Path, tasks: Path, cards: Path,
    report: Report,
) -> None:  # fmt: skip
    """One task, in a process of its own."""
    from experts.backbones import open_backbone
    from experts.embedder import open_embedder
    from experts.library import Library
    from experts.training.build import read_cards
    from experts.training.data import Task
    from routers.fitting.build import fit_task

    opened = open_backbone(backbone)
    shelf = Library.open(library, fingerprint=opened.fingerprint, backbone_id=opened.id)
    by = open_embedder(embedder, opened, backbone_name=backbone)
    fit_task(opened, by, shelf, Task(tasks / name), read_cards(cards), report)


def _calibrate(settings: Settings, tasks: list[Task]) -> None:
    from server.build import build_engine
    from server.calibrate import calibrate

    _require_aside(tasks)
    with busy("Loading backbone and library") as told:
        engine = build_engine(settings, progress=told)
    constants = calibrate(engine, tasks, bar, refer=partial(_reference, engine, tasks))
    notes.print(
        f"Calibration {constants.version}: {constants.model_dump(exclude={'version', 'reference'})}"
    )


def _note_reference(settings: Settings, tasks: list[Task]) -> None:
    """The reference alone: for a library that has grown since it was calibrated.

    Raises:
        StaleConstants: another process has calibrated the library meanwhile.
    """
    from server.build import build_engine
    from server.engine.view import calibration_of

    _require_aside(tasks)
    engine = build_engine(settings)
    if engine.library.calibration is None:
        raise fail("the library has no constants yet: start with --calibrate")
    found = _reference(engine, tasks, engine.routing.calibration)
    # What is stored stays, also where this embedder cannot use all of it.
    stored = calibration_of(engine.library.calibration)
    stored = stored.model_copy(update={"reference": found})
    engine.library.write_calibration(stored.model_dump(mode="json"))
    notes.print(f"Calibration {stored.version} has a new reference.")


def _reference(
    engine: Engine, tasks: list[Task], constants: Calibration
) -> dict[str, Reference]:  # fmt: skip
    """How set-aside questions are routed by constants."""
    from server.evidence.record import SORTS
    from server.reference import references

    cards = {id: entry.manifest for id, entry in engine.library.entries.items()}
    with bar("Reference", len(SORTS)) as step:
        return references(engine, constants, tasks, cards, step)


def _require_aside(tasks: list[Task]) -> None:
    if not any(task.aside for task in tasks):
        raise fail("nothing to calibrate on: no example of an expert's task is set aside")
