"""Task folders: reading them, and setting examples aside before anything is trained.

The format is `task.json` plus `train.jsonl` and `test.jsonl`, which may be gzipped (`.jsonl.gz`). A
line is a question with its choices, `{"input", "options", "answer"}`, or a text that is to be
written, `{"input", "output"}`. Knows nothing of wordings or models.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experts.errors import ExpertError

SET_ASIDE = 0.15
"""Share of each train file that experts never see: calibration uses this and nothing else."""


@dataclass(frozen=True)
class Example:
    """One question: `answer` is an index in `options`.

    One with a single option leaves nothing to choose: that is the text to write.
    """

    input: str
    options: tuple[str, ...]
    answer: int

    @property
    def right(self) -> str:
        """The right option."""
        return self.options[self.answer]

    @property
    def is_written(self) -> bool:
        """Whether the answer is to be written, and not chosen."""
        return len(self.options) == 1


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
            told = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise TaskFormatError(f"{path}: {error}") from error
        if not isinstance(told, dict):
            raise TaskFormatError(f"{path}: expected an object.")
        return told

    @cached_property
    def labels(self) -> tuple[str, ...] | None:
        """The fixed label set, or None where every question brings its own choices."""
        options = self.about.get("options")
        return tuple(options) if isinstance(options, list) else None

    @property
    def writes(self) -> bool:
        """Whether its answers are texts to write."""
        return bool(self._train_file) and all(e.is_written for e in self._train_file)

    @cached_property
    def test(self) -> tuple[Example, ...]:
        """The test examples."""
        return tuple(_read_examples(self._file("test")))

    @property
    def train_path(self) -> Path:
        """The file of the examples to learn from and of those set aside."""
        return self._file("train")

    @cached_property
    def _train_file(self) -> tuple[Example, ...]:
        return tuple(_read_examples(self.train_path))

    def _file(self, split: str) -> Path:
        """A split's file, gzipped unless only a plain one is there."""
        plain, packed = (self.folder / f"{split}.jsonl{end}" for end in ("", ".gz"))
        if plain.exists() and packed.exists():
            raise TaskFormatError(f"{plain} and {packed.name}: expected one of them.")
        return plain if plain.exists() else packed

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
        raise TaskFormatError(f"{root} has {what} (a folder with task.json and train.jsonl).")
    return [t for t in tasks if not only or t.name in only]


def _read_examples(path: Path) -> Iterator[Example]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield _parse(line, f"{path}:{number}")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise TaskFormatError(f"{path}: {error}") from error


def _parse(line: str, where: str) -> Example:
    try:
        row = json.loads(line)
        if isinstance(row, dict) and "output" in row:
            return _written(row, where)
        example = Example(str(row["input"]), tuple(map(str, row["options"])), int(row["answer"]))
    except (ValueError, KeyError, TypeError) as error:
        raise TaskFormatError(
            f"{where}: expected input, options and answer, or input and output ({error})"
        ) from error
    if not 0 <= example.answer < len(example.options):
        raise TaskFormatError(f"{where}: answer {example.answer} is not an index of its options.")
    return example


def _written(row: Mapping[str, object], where: str) -> Example:
    if both := {"options", "answer"} & row.keys():
        raise TaskFormatError(f"{where}: output and {min(both)}: expected one of them.")
    if not (isinstance(row["output"], str) and row["output"]):
        raise TaskFormatError(f"{where}: output: expected a text, got {row['output']!r}.")
    return Example(str(row["input"]), (row["output"],), 0)
