"""Targets by hand: cells of known answers, and what each target makes of them."""

import pytest

from benchmarks.quality.cells import Cell, Place
from benchmarks.quality.conditions import CONDITIONS
from benchmarks.quality.parts import Part
from benchmarks.quality.results import Questions, Results
from benchmarks.quality.rows import COMPARISON, Forced, Routed
from benchmarks.quality.summary import Group, Summary
from benchmarks.quality.targets import targets_of
from routers.presets import DEFAULT
from tests.benchmarks.quality.conftest import HELD_IN

N = 100
OUT = Group("out")


def cell(right, *, first=None, sure=0.5, top=0.8):
    """A cell with so many right answers of 100."""
    answers = [1] * right + [0] * (N - right)
    return Cell(answers, [first] * N, [1] * N, [sure] * N, [top] * N)


@pytest.fixture
def told(bench):
    """Targets for accuracies by way (percent right, held in and held out)."""

    def make(accuracy, *, worse=None, sure=(1.0, 0.0), top=0.9):
        parts = {p: p.tasks(bench.places.data) for p in (Part("in"), Part("out"))}
        results = Results(bench, Questions(parts, CONDITIONS))
        for part, task, condition in results.questions:
            for way, (inside, outside) in accuracy.items():
                right = inside if part.held == "in" else outside
                if worse == (task.name, condition) and way == Routed(DEFAULT):
                    right -= 30
                own = way == Routed(DEFAULT) and part.held == "in"
                results.cells[Place(part, way, task.name, condition)] = cell(
                    right, first=task.name if own else "trec",
                    sure=sure[part.held == "out"], top=top,
                )  # fmt: skip
        return {t.figure: t for t in targets_of(Summary(results, COMPARISON), OUT)}

    return make


EXPERTS = {Forced(id): (80, 60) for id in HELD_IN}
GOOD = {Routed("base"): (50, 50), Routed(DEFAULT): (79, 54), Routed("dam"): (75, 52), **EXPERTS}


def test_a_share_of_the_oracle(told):
    found = told(GOOD)
    for condition, holds in {"choices": False, "instruction": False, "reworded": True,
                             "input": True}.items():  # fmt: skip
        target = found[f"{condition}, held in: default / oracle"]
        assert target.value == 0.9875
        assert target.holds is holds


def test_points_above_another_row(told):
    found = told(GOOD)
    bare = found["choices, held out, others: default - the bare backbone, points"]
    assert (bare.value, bare.target, bare.holds) == (4.0, ">= 3", True)
    dam = found["input, held in: default - DAM, points"]
    assert (dam.value, dam.target, dam.holds) == (4.0, "> 0", True)
    same = told({**GOOD, Routed("dam"): (79, 54)})["input, held in: default - DAM, points"]
    assert (same.value, same.holds) == (0.0, False)


def test_the_best_of_all_rows_is_not_beaten_while_one_is_not_made(told):
    found = told(GOOD)
    best = found[
        "reworded, held out: default - the best of every row but oracle and multitask, points"
    ]
    assert best.value == 2.0
    assert best.holds is False
    assert best.note.startswith("best: dam; not made: single, average")


def test_a_sure_loss_on_one_task_is_named(told):
    figure = "tasks and conditions with the paired interval of default - bare below -1 point"
    assert told(GOOD)[figure].holds is True
    low = {**GOOD, Routed(DEFAULT): (79, 51)}
    lost = told(low, worse=("subj", "reworded"))[figure]
    assert (lost.value, lost.holds, lost.note) == (1.0, False, "subj (reworded)")


def test_confidence_that_knows_what_it_does_not_know(told):
    found = told(GOOD)
    where = "input, held in and held out"
    assert found[f"{where}, half and half: calibration error"].value == 0.0
    assert found[f"{where}: AUROC of confidence"].value == 1.0
    blind = told(GOOD, sure=(0.9, 0.9))
    error = blind[f"{where}, half and half: calibration error"]
    assert (error.value, error.holds) == (0.4, False), (
        "right for half of all, whatever their number"
    )
    assert blind[f"{where}: AUROC of confidence"].value == 0.5


def test_answers_are_to_be_as_sure_as_they_are_right(told):
    found = told(GOOD, top=0.84)
    answers = found["choices, held in: calibration error of the answers"]
    assert (answers.value, answers.holds) == (0.05, True)
    reworded = found["reworded, held in: calibration error of the answers"]
    assert (reworded.value, reworded.target, reworded.holds) == (0.05, None, None)
