"""Where the default loses, and who is named for it."""

from dataclasses import replace

import pytest

from benchmarks.quality.bounds import losses, shortfalls
from benchmarks.quality.findings import Numbers
from benchmarks.quality.run import Order, run
from benchmarks.quality.summary import Group, Summary
from tests.benchmarks.quality.conftest import rows


@pytest.fixture
def summary(bench):
    """A run of its own, whose cells may be changed."""
    order = Order(rows("base", "default"), limit=3, timed=False, studies=False)
    found = run(bench, order).summary
    return Summary(replace(found.results, cells=dict(found.results.cells)), found.rows)


def answer(summary, row, task, right, first=None):
    """Have a row answer a task under every condition so many times rightly, of 40."""
    for place, cell in summary.results.cells.items():
        if place.task == task and place.way == row.way:
            of = {"right": [1] * right + [0] * (40 - right)}
            if first:
                of |= {"first": [first] * 40, "confidence": [0.5] * 40}
            summary.results.cells[place] = replace(cell, **of)


def test_only_sure_losses_are_named_with_who_came_first(summary):
    base, default = rows("base", "default")
    held_in, outside = (
        t.name for t in (summary.tasks(Group("in"))[0], summary.tasks(Group("out"))[0])
    )
    for task in [t.name for g in (Group("in"), Group("out")) for t in summary.tasks(g)]:
        answer(summary, base, task, 30)
        answer(summary, default, task, 30, "sst2")
    assert list(losses(summary, Group("out"))) == []
    answer(summary, default, held_in, 29, "sst2")  # a loss, but not surely
    assert list(losses(summary, Group("out"))) == []
    answer(summary, default, outside, 10, "trec")
    (told,) = losses(summary, Group("out"))
    assert told.startswith(f"{outside} (trec): -50.0 input, -50.0 choices")


def test_the_tasks_that_seem_to_have_an_expert_are_named(summary):
    outside = [task.name for task in summary.tasks(Group("out"))]
    (default,) = rows("default")
    for share, task in enumerate(outside):
        for place, cell in summary.results.cells.items():
            if place.task == task and place.way == default.way:
                sure = replace(cell, confidence=[0.9 - 0.2 * share] * 3, first=["sick"] * 3)
                summary.results.cells[place] = sure
    text = "\n".join(shortfalls(Numbers(summary, None, None), Group("out")))
    assert f"highest on {outside[0]} (0.90; sick)" in text


def test_what_was_set_aside_is_told_of_own_experts_that_hurt(bench):
    found = run(bench, Order(rows("base", "default", "single"), limit=3, timed=False))
    summary = Summary(replace(found.summary.results, cells=dict(found.summary.results.cells)),
                      found.summary.rows)  # fmt: skip
    base, default, _ = found.summary.rows
    task = summary.tasks(Group("in"))[0].name
    answer(summary, base, task, 30)
    answer(summary, default, task, 10, task)
    numbers = Numbers(summary, found.curve, found.ablations)
    text = "\n".join(shortfalls(numbers, Group("out")))
    assert f"{task} by its own expert" in text
    assert "of the train file and" in text
