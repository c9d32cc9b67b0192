"""What a wrong first expert costs, from answers that are set by hand."""

from dataclasses import replace

import pytest

from benchmarks.quality.misrouted import Misrouted, misrouted
from benchmarks.quality.results import Gap
from benchmarks.quality.run import Order, run
from benchmarks.quality.summary import Group, Summary
from tests.benchmarks.quality.conftest import rows


@pytest.fixture
def summary(bench):
    """A run whose cells may be changed: four questions a task."""
    order = Order(rows("base", "dam", "oracle"), ("input",), ("in",), limit=4, timed=False,
                  studies=False)  # fmt: skip
    found = run(bench, order).summary
    return Summary(replace(found.results, cells=dict(found.results.cells)), found.rows)


def answer(summary, task, name, right, first=None):
    """Have a row answer a task's four questions so."""
    (row,) = rows(name)
    for place, cell in summary.results.cells.items():
        way = getattr(row, "way", None)
        if place.task == task and (place.way == way if way else place.way.name == f"expert={task}"):
            of = {"right": right, **({"first": first} if first else {})}
            summary.results.cells[place] = replace(cell, **of)


def test_only_inputs_with_another_expert_first_count(summary):
    for task in (t.name for t in summary.tasks(Group("in"))):
        answer(summary, task, "dam", [1, 1, 0, 0], [task, "other", "other", task])
        answer(summary, task, "oracle", [0, 1, 1, 0])
        answer(summary, task, "base", [1, 0, 0, 1])
    found = misrouted(summary, *rows("dam"), "input")
    assert found == Misrouted(count=6, routed=0.5, own=1.0, bare=0.0)


def test_a_row_that_is_never_wrong_has_no_such_figure(summary):
    for task in (t.name for t in summary.tasks(Group("in"))):
        answer(summary, task, "dam", [1, 1, 0, 0], [task] * 4)
    assert isinstance(misrouted(summary, *rows("dam"), "input"), Gap)
    assert isinstance(misrouted(summary, *rows("dam"), "choices"), Gap), "it was not asked"
