"""The router's constants for a stream: of a library that knows none of the stream's tasks.

The demo library's own constants are fitted on inputs of tasks that streams are made of. Here they
are fitted anew, by what `sailplane fit --calibrate` does, on its other experts alone. Knows nothing
of how a stream is learnt.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.continual.plan import STREAMS, Plan
from experts.artefacts import Artefacts
from experts.constants import CALIBRATION, write_constants
from experts.entries import ROUTING, Entry
from experts.errors import UnknownExpert
from experts.files import sha256_of
from experts.library import Library
from experts.training.data import Task, read_tasks
from routers.fitting.confidence import FEWEST
from server.build import build_engine
from server.calibrate import Stage, Told, calibrate
from server.cli.jobs import Report
from server.settings import Settings

FORMAT = 4
LEAST = FEWEST
"""Experts that are needed: one is left out in turn."""


def make_constants(stream: str, plan: str, report: Report) -> None:
    """Have a stream's constants on disk, in a process of its own.

    Args:
        plan: a `Plan` as JSON.

    Raises:
        UnknownExpert: too few of the library's experts are of other tasks.
    """
    ordered = Plan.model_validate_json(plan)
    root = place_of(ordered, stream)
    if not (root / CALIBRATION).exists():
        experts = _others(ordered, stream)
        if len(experts) < LEAST:
            raise UnknownExpert(
                f"{ordered.library} has {len(experts)} experts of tasks that are not in the stream "
                f"{stream}, and at least {LEAST} are needed to calibrate on."
            )
        fit_constants(experts, ordered.backbone, root, _stages(report))


def fit_constants(
    experts: Sequence[tuple[Entry, Task]], backbone: str, root: Path, stage: Stage
) -> None:
    """Fit the constants of a library of just these experts, and write them to `root`.

    Args:
        experts: each with its task. They stay as they are. stage: see `calibrate`.
    """
    with TemporaryDirectory() as folder:
        library = Path(folder)
        for entry, _ in experts:
            shutil.copytree(entry.path, library / entry.id)
        engine = build_engine(Settings(backbone=backbone, library=library, threads=1))
        calibrate(engine, [task for _, task in experts], stage, words=False)
        take_over(library, root)


def place_of(plan: Plan, stream: str) -> Path:
    """Where a stream's constants are kept: named by all they depend on, the code aside."""
    seen = [
        (entry.digest, sha256_of(task.folder / "train.jsonl.gz"))
        for entry, task in _others(plan, stream)
    ]
    key = hashlib.blake2b(json.dumps([FORMAT, seen]).encode(), digest_size=12).hexdigest()
    return plan.cache / "constants" / f"{stream}-{key}"


def take_over(source: Path, root: Path) -> None:
    """Have the library at `root` route by the constants at `source`.

    What its experts say of themselves by others is dropped first, unread: who describes them next
    does it by these, also after an interruption.

    Raises:
        UnknownExpert: there are none.
    """
    theirs, ours = Library.open(source), Library.open(root)
    if theirs.calibration is None:
        raise UnknownExpert(f"{source} has no constants. Run this again: they are made first.")
    if _told(theirs) == _told(ours):
        return
    for entry in ours.entries.values():
        if ROUTING in entry.manifest.files:
            ours.refit(entry, Artefacts(embedder=""))
    write_constants(root, _told(theirs), theirs.calibration_tensors(), None)


def _told(library: Library) -> dict[str, object]:
    """Its constants; their version names the tensors too."""
    return {k: v for k, v in (library.calibration or {}).items() if k != "tensors"}


def _others(plan: Plan, stream: str) -> list[tuple[Entry, Task]]:
    """The library's experts of tasks that are not the stream's, in order of name."""
    entries, own = Library.open(plan.library).entries, STREAMS[stream]
    tasks = read_tasks(plan.data / "held_in")
    found = [(entries[t.name], t) for t in tasks if t.name in entries and t.name not in own]
    return found[: plan.others]


def _stages(report: Report) -> Stage:
    """Shows what a calibration does in the bar of its job."""

    @contextmanager
    def stage(what: str, total: int) -> Generator[Told]:
        done = 0
        report(done, total, what)

        def step() -> None:
            nonlocal done
            done += 1
            report(done, total, what)

        yield step

    return stage
