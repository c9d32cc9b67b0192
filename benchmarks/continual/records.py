"""What is kept of a setting once it was asked: a JSON file with a matrix for every row.

So settings can be measured one at a time, in several runs and on several machines, and a report is
of all of them. Holds no text of any example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from experts.atomic import atomic_write
from experts.manifest import Record
from experts.training.recipe import Retention

if TYPE_CHECKING:
    from benchmarks.continual.plan import Setting

Matrix = tuple[tuple[float, ...], ...]


class Numbers(Record):
    """By which numbers streams were learnt and asked: figures of others are not comparable.

    Attributes:
        examples, epochs: of each training. asked: "test" or "set aside". limit: questions a task.
    """

    examples: int
    epochs: int
    asked: str
    limit: int | None
    retention: Retention


class Learnt(Record):
    """One setting and what every row did in it.

    Attributes:
        commit: the code that asked. constants: names those that the router went by.
        tasks: in the order they came.
        accuracy, own: by row, after each step (outer) on each task so far (inner): the share of
            right answers, and of inputs for which the task's own expert has the most weight.
    """

    commit: str
    constants: str
    numbers: Numbers
    stream: str
    kind: str
    seed: int
    tasks: tuple[str, ...]
    accuracy: dict[str, Matrix]
    own: dict[str, Matrix]


def keep(learnt: Learnt, folder: Path) -> Path:
    """Write a setting's file in the place of a former one; one that says the same stays.

    A run that finds all its cells asks nothing: the commit that asked is still the former one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{learnt.stream}-{learnt.kind}-{learnt.seed}.json"
    former = _read(path)
    if former and former.model_copy(update={"commit": learnt.commit}) == learnt:
        return path
    atomic_write(path, (learnt.model_dump_json(indent=1) + "\n").encode())
    return path


def kept(
    folder: Path, numbers: Numbers, settings: Sequence[Setting], constants: Mapping[str, str]
) -> list[Learnt]:
    """Those of these settings that were measured alike, in the order of `settings`.

    Args:
        constants: the name of the router's constants, by stream.
    """
    found = (_read(folder / f"{setting.name}.json") for setting in settings)
    return [
        learnt for learnt in found
        if learnt and learnt.numbers == numbers and learnt.constants == constants[learnt.stream]
    ]  # fmt: skip


def _read(path: Path) -> Learnt | None:
    """None where there is no such file, or one of another form."""
    try:
        return Learnt.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
