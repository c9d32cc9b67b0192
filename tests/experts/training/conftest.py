"""A tiny task that can be learnt, and its card: our own words only."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.manifest import Label, TaskCard, Wording
from experts.training.data import Example


@pytest.fixture
def backbone() -> TextEncoder:
    return tiny_encoder()


@pytest.fixture
def card() -> TaskCard:
    """Two labels; `unseen` words must never be asked for."""
    return TaskCard(
        id="tone",
        title="Tone",
        instructions=("Say how loud it is.",),
        labels=(
            Label(
                value="loud", wordings=(Wording(value="noisy"),),
                unseen=Wording(value="deafening"), statements=("It is loud.",),
                negations=("It is not loud.",), statement_unseen="What a din.",
            ),
            Label(value="quiet", statements=("It is quiet.",), negations=("It is not quiet.",)),
        ),
    )  # fmt: skip


@pytest.fixture
def examples() -> list[Example]:
    return [
        Example(text, ("loud", "quiet"), answer)
        for i in range(12)
        for text, answer in ((f"SHOUT {i}!!!", 0), (f"hush {i}...", 1))
    ]


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., Path]:
    """Write a task folder whose two files hold these lines: `write_lines("task", lines)`."""

    def write(name: str, lines: Sequence[str], about: str = "{}") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "task.json").write_text(about)
        for file in ("train.jsonl.gz", "test.jsonl.gz"):
            with gzip.open(folder / file, "wt", encoding="utf-8") as out:
                out.writelines(f"{line}\n" for line in lines)
        return folder

    return write


@pytest.fixture
def write_task(write_lines: Callable[..., Path]) -> Callable[..., Path]:
    """Write a task folder of these examples."""

    def write(name: str, examples: Sequence[Example], **about: object) -> Path:
        rows = [{"input": e.input, "options": e.options, "answer": e.answer} for e in examples]
        return write_lines(name, [json.dumps(row) for row in rows], json.dumps(about))

    return write
