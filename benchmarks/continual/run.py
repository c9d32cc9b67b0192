"""One setting from beginning to end, in a process of its own: train, gather, ask, keep."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.continual.cells import Cells, Questions, measure
from benchmarks.continual.constants import place_of, take_over
from benchmarks.continual.experts import Chains, gather
from benchmarks.continual.plan import Plan, Setting
from benchmarks.continual.records import Learnt, Matrix, keep
from benchmarks.continual.rows import Row
from benchmarks.documents import commit
from benchmarks.held_out import note_run
from experts.backbones import TextEncoder, open_backbone
from experts.library import Library
from experts.training.build import read_cards
from experts.training.schedule import Progress
from server.build import build_tiers
from server.cli.jobs import Report
from server.engine.run import Engine

EXPERT_BYTES = 1 << 29
MAKING = 28
"""Trainings of a setting, about: what a bar counts before it counts cells."""


def run_setting(name: str, plan: str, report: Report) -> None:
    """Have everything of a setting on disk: its experts, its cells, and what it found.

    Args:
        plan: a `Plan` as JSON. `make_constants` has been there before.
    """
    ordered, setting = Plan.model_validate_json(plan), Setting.named(name)
    backbone = open_backbone(ordered.backbone)
    begun = 0

    def told(what: str) -> Progress:
        nonlocal begun
        begun += 1
        place = begun

        def step(done: int, total: int, _: float) -> None:
            report(min(place, MAKING), 2 * MAKING, f"{what}: {done} of {total}")

        return step

    constants = place_of(ordered, setting.stream)
    made = Chains(ordered, setting, backbone, constants, read_cards(ordered.cards), told).make()
    root = ordered.cache / setting.name / "library"
    take_over(constants, root)
    gather(made, ordered.order(setting.stream), root)

    def asked(done: int, total: int, what: str) -> None:
        report(MAKING + MAKING * done // total, 2 * MAKING, what)

    logged = False

    def log(questions: Questions) -> None:
        nonlocal logged
        if questions.held_out and not logged:
            note_run(ordered.held_out_log, setting=setting.name, task=questions.task.name,
                     limit=ordered.limit)  # fmt: skip
            logged = True

    measure(
        _engine(ordered, setting, backbone), cells_of(ordered, setting),
        [Questions(t, ordered.aside, ordered.limit) for t in ordered.tasks(setting)],
        ordered.shown, ordered.again, asked, log,
    )  # fmt: skip
    keep(learnt(ordered, setting), ordered.records)


def learnt(plan: Plan, setting: Setting) -> Learnt:
    """What every row of a run did in a setting, from its cells."""
    cells, order = cells_of(plan, setting), plan.order(setting.stream)

    def of(figure: str) -> dict[str, Matrix]:
        return {row.name: matrix(cells, row, order, figure) for row in plan.shown}

    return Learnt(
        commit=commit(), constants=place_of(plan, setting.stream).name, numbers=plan.numbers,
        stream=setting.stream, kind=setting.kind, seed=setting.seed, tasks=order,
        accuracy=of("accuracy"), own=of("own"),
    )  # fmt: skip


def cells_of(plan: Plan, setting: Setting) -> Cells:
    """The kept cells of a setting."""
    return Cells(plan.cache / setting.name / f"cells-{'aside' if plan.aside else 'test'}.json")


def matrix(cells: Cells, row: Row, order: Sequence[str], of: str = "accuracy") -> Matrix:
    """A row's figure after each step (outer) on each task so far (inner), as a share."""
    found: list[tuple[float, ...]] = []
    for step in range(len(order)):
        there = [cells.get(row.way(order, step, i), order[i]) for i in range(step + 1)]
        found.append(tuple(c.accuracy if of == "accuracy" else c.own / c.asked for c in there))
    return tuple(found)


def _engine(plan: Plan, setting: Setting, backbone: TextEncoder) -> Engine:
    """The engine that serves, over the gathered experts."""
    library = Library.open(
        plan.cache / setting.name / "library", fingerprint=backbone.fingerprint,
        backbone_id=backbone.id,
    )  # fmt: skip
    return Engine(backbone, library, build_tiers(library, backbone, EXPERT_BYTES, EXPERT_BYTES))
