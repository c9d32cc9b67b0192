"""Which tasks and examples a run asks: parts of the data.

| held | tasks | examples |
|---|---|---|
| in | those with an expert | test files, or what was set aside of the train files |
| out | those without | test files: for the report only, and every run is logged |
| left | those with an expert, which is taken out of the library for them | set aside |

`left` stands in for `out` while a router is being developed (leave one task out).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experts.errors import ExpertError
from experts.training.data import Example, Task, read_tasks

Held = Literal["in", "out", "left"]
FOLDERS = {"in": "held_in", "out": "held_out", "left": "held_in"}
ASIDE_HELD: tuple[Held, ...] = ("in", "left")
TEST_HELD: tuple[Held, ...] = ("in", "out")
BBH = "bbh_"


class QualityError(ExpertError):
    """The comparison cannot be made as it was asked for; the message says why."""


@dataclass(frozen=True)
class Part:
    """Examples of one kind.

    Attributes:
        aside: the examples set aside of the train files, not the test files. limit: per task.
    """

    held: Held
    aside: bool = False
    limit: int | None = None

    @property
    def name(self) -> str:
        """Names it among the cells."""
        source = "aside" if self.aside else "test"
        return f"{self.held}-{source}" + (f"-{self.limit}" if self.limit else "")

    def tasks(self, data: Path) -> list[Task]:
        """Its tasks below a data folder.

        Raises:
            TaskFormatError: there are none.
        """
        return read_tasks(data / FOLDERS[self.held])

    def examples(self, task: Task) -> Sequence[Example]:
        """What is asked of a task."""
        return (task.aside if self.aside else task.test)[: self.limit]


def parts_of(held: Sequence[Held], *, aside: bool, limit: int | None) -> list[Part]:
    """The parts a run asks.

    Raises:
        QualityError: there is no such part.
    """
    allowed = ASIDE_HELD if aside else TEST_HELD
    if wrong := sorted(set(held) - set(allowed)):
        flag = "with --aside" if aside else "without --aside"
        raise QualityError(f"--held {','.join(wrong)}: {flag} there are {', '.join(allowed)}.")
    return [Part(h, aside, limit) for h in held]


def is_bbh(task: str) -> bool:
    """Whether a task is one of BIG-Bench-Hard."""
    return task.startswith(BBH)
