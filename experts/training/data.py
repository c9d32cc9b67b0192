"""Task folders: reading them, and setting examples aside before anything is trained.

The format is `task.json` plus `train.jsonl.gz` / `test.jsonl.gz` with one
`{"input", "options", "answer"}` a line. Knows nothing of wordings or models.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experts.errors import ExpertError

SET_ASIDE = 0.15
"""Share of each train file that experts never see: calibration uses this and nothing else."""


@dataclass(frozen=True)
class Example:
    """One question: `answer` is an index in `options`."""

    input: str
    options: tuple[str, ...]
    answer: int


class TaskFormatError(ExpertError):
    """A task folder that cannot be read; the message names the file and line."""


@dataclass(frozen=True)
class Task:
    """A task folder. Files are read when first asked for."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name: the id of its expert."""
        return self.folder.name

    @cached_property
    def about(self) -> dict[str, object]:
        """`task.json`."""
        path = self.folder / "task.json"
        try:
            return json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise TaskFormatError(f"{path}: {error}") from error

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """The fixed label set, or None where every question brings its own choices."""
        options = self.about.get("options")
        return tuple(options) if isinstance(options, list) else None

    @cached_property
    def test(self) -> tuple[Example, ...]:
        """The test examples."""
        return tuple(_read_examples(self.folder / "test.jsonl.gz"))

    @property
    def train_path(self) -> Path:
        """The file of the examples to learn from and of those set aside."""
        return self.folder / "train.jsonl.gz"

    @cached_property
    def _train_file(self) -> tuple[Example, ...]:
        return tuple(_read_examples(self.train_path))

    @property
    def train(self) -> list[Example]:
        """Examples an expert may be trained and fitted on."""
        return [e for e in self._train_file if not is_set_aside(e)]

    @property
    def aside(self) -> list[Example]:
        """Examples set aside for calibration: disjoint from `train`."""
        return [e for e in self._train_file if is_set_aside(e)]


def is_set_aside(example: Example) -> bool:
    """Whether an example is set aside: by the hash of its input, so its place doesn't matter."""
    digest = hashlib.sha256(example.input.encode()).digest()
    return int.from_bytes(digest[:8]) < SET_ASIDE * 2**64


def read_tasks(root: Path, only: Sequence[str] = ()) -> list[Task]:
    """Every task folder under `root`, in order of name.

    Raises:
        TaskFormatError: there is none, or one that `only` names is missing.
    """
    tasks = [Task(p.parent) for p in sorted(root.glob("*/task.json"))]
    missing = set(only) - {t.name for t in tasks}
    if missing or not tasks:
        what = f"no task {', '.join(sorted(missing))}" if missing else "no task folders"
        raise TaskFormatError(f"{root} has {what} (a folder with task.json and *.jsonl.gz).")
    return [t for t in tasks if not only or t.name in only]


def _read_examples(path: Path) -> Iterator[Example]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield _parse(line, f"{path}:{number}")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise TaskFormatError(f"{path}: {error}") from error


def _parse(line: str, where: str) -> Example:
    try:
        row = json.loads(line)
        example = Example(str(row["input"]), tuple(map(str, row["options"])), int(row["answer"]))
    except (ValueError, KeyError, TypeError) as error:
        raise TaskFormatError(f"{where}: expected input, options and answer ({error})") from error
    if not 0 <= example.answer < len(example.options):
        raise TaskFormatError(f"{where}: answer {example.answer} is not an index of its options.")
    return example
