"""`python -m benchmarks.generation.train`: train a backbone and its experts, and score them.

Writes OUT/backbone, OUT/adapters/<task> and OUT/scores.json. What is finished is not trained
again, and an interrupted run goes on where it was. One thread, fixed seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers.utils import logging

from benchmarks.generation.backbone import COURSES, Told, train_backbone
from benchmarks.generation.checkpoints import FAMILIES, Family, Size
from benchmarks.generation.experts import COURSE, course_of, score, train_expert
from benchmarks.generation.learning import Course
from benchmarks.generation.tasks import TASKS
from benchmarks.places import CACHE

TESTS = 200
"""Test inputs a task."""
SAID_EVERY = 50
"""Steps between two lines where there is no terminal to draw a bar on."""


def main() -> None:
    """Make what the command line names."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.generation.train", description=__doc__.split("\n\n")[1]
    )
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--out", type=Path, help="default: benchmarks/.cache/generation/FAMILY")
    given = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    out = given.out or CACHE / "generation" / given.family
    try:
        Console().print(_table(make(given.family, out)))
    except FileExistsError as error:
        parser.exit(1, f"Error: {error}\n")


def make(
    family: Family,
    out: Path,
    *,
    size: Size | None = None,
    course: Course | None = None,
    expert_course: Course = COURSE,
    ids: tuple[str, ...] = tuple(TASKS),
    tests: int = TESTS,
) -> dict[str, dict[str, float]]:
    """Have backbone, experts and scores of a family below `out`.

    Returns:
        What stands in `scores.json` as `tasks`: the exact match of the bare backbone, of the right
        expert, and of the others in the mean, by task.

    Raises:
        FileExistsError: there are experts, but the backbone that they were trained on is gone.
    """
    backbone, adapters, console = out / "backbone", out / "adapters", Console(stderr=True)
    course = course or COURSES[family]
    if not backbone.exists():
        if adapters.exists():
            raise FileExistsError(f"{adapters} holds experts of a backbone that is not there")
        with _progress("backbone", course.steps, console) as told:
            train_backbone(family, backbone, told, course, size)
    for id in ids:
        if not (adapters / id).exists():
            with _progress(id, course_of(TASKS[id], expert_course).steps, console) as told:
                train_expert(family, TASKS[id], backbone, adapters / id, told, expert_course)
    console.print(f"{len(ids) + 1} answerers on {len(ids)} tasks, {tests} inputs each ...")
    found = score(family, backbone, adapters, ids, tests)
    tasks = {id: _row(found, id) for id in ids}
    kept = {"family": family, "tests": tests, "tasks": tasks, "matrix": found}
    (out / "scores.json").write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    return tasks


def _row(found: dict[str, dict[str, float]], id: str) -> dict[str, float]:
    wrong = [by_task[id] for name, by_task in found.items() if name not in ("bare", id)]
    mean = sum(wrong) / max(1, len(wrong))
    return {"bare": found["bare"][id], "right": found[id][id], "wrong": round(mean, 4)}


def _table(tasks: dict[str, dict[str, float]]) -> Table:
    table = Table("task", "bare", "right expert", "wrong experts")
    for id, row in tasks.items():
        table.add_row(id, *(f"{row[name]:.1%}" for name in ("bare", "right", "wrong")))
    return table


@contextmanager
def _progress(label: str, steps: int, console: Console) -> Iterator[Told]:
    """A bar on a terminal, otherwise a line now and then."""
    if not console.is_terminal:

        def say(done: int, loss: float) -> None:
            if (done + 1) % SAID_EVERY == 0 or done + 1 == steps:
                console.print(f"{label}: step {done + 1} of {steps}, loss {loss:.3f}")

        yield say
        return
    with Progress(console=console) as bars:
        bar = bars.add_task(label, total=steps)

        def draw(done: int, loss: float) -> None:
            bars.update(bar, completed=done + 1, description=f"{label} (loss {loss:.3f})")

        yield draw


if __name__ == "__main__":
    main()
