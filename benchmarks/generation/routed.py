"""`python -m benchmarks.generation.routed`: how well the shipped library writes when it is asked.

Nobody names an expert. Counts texts that are written exactly, by what a request says beside the
input. Tests only; nothing here is used to make the library.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table

from benchmarks.generation.tasks import TASKS, Task
from benchmarks.generation.wordings import NEW
from benchmarks.places import ROOT, WRITER
from server.build import build_engine
from server.engine.messages import RoutingOptions, Sample
from server.engine.run import Engine
from server.settings import read_settings
from server.written import exact

Say = Callable[[Task, int], str | None]
"""The instruction of a task's i-th test input; None leaves it out."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.generation.routed", description=__doc__.split("\n\n")[1]
    )
    parser.add_argument("--count", type=int, default=50, help="test inputs a task")
    given = parser.parse_args()
    settings = read_settings({"threads": 1, "library": WRITER}, WRITER / "sailplane.toml").settings
    backbone = str(ROOT / settings.backbone)
    engine = build_engine(settings.model_copy(update={"backbone": backbone}))
    Console().print(table(measure(engine, given.count)))


def measure(engine: Engine, count: int) -> dict[str, dict[str, float]]:
    """Share of `count` test inputs that are answered exactly, by condition, then by task."""
    bare = engine.backbone.id
    conditions: Mapping[str, tuple[str, Say]] = {
        "bare": (bare, lambda _task, _i: None),
        "known": ("auto", lambda task, i: known(engine, task)[i % len(known(engine, task))]),
        "unseen": ("auto", lambda task, _i: task.unseen),
        "new": ("auto", lambda task, _i: NEW[task.id]),
        "input alone": ("auto", lambda _task, _i: None),
    }
    return {
        name: {task.id: _right(engine, task, count, model, say) for task in TASKS.values()}
        for name, (model, say) in conditions.items()
    }


def known(engine: Engine, task: Task) -> tuple[str, ...]:
    """The instructions that an expert is described by."""
    return engine.library.get(task.id).manifest.instructions


def _right(engine: Engine, task: Task, count: int, model: str, say: Say) -> float:
    tests = task.tests(count)
    samples = [
        Sample(text, None, model, RoutingOptions(instruction=say(task, i)))
        for i, (text, _) in enumerate(tests)
    ]
    return sum(exact(engine, [answer for _, answer in tests], samples)) / count


def table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """The figures in percent, with means."""
    made = Table("task", *found)
    for id in TASKS:
        made.add_row(id, *(f"{100 * row[id]:.1f}" for row in found.values()))
    made.add_section()
    made.add_row("mean", *(f"{100 * sum(r.values()) / len(r):.1f}" for r in found.values()))
    return made


if __name__ == "__main__":
    main()
