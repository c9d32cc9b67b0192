"""Who answers a task after a step, row by row."""

import pytest

from benchmarks.continual.cells import ways_of
from benchmarks.continual.rows import ROWS, Way

ORDER = ("sst2", "trec", "sick")


@pytest.mark.parametrize(
    ("row", "step", "way"),
    [
        ("sequential", 2, Way("sick")),
        ("replay", 2, Way("replay.sick")),
        ("replay", 0, Way("sst2")),
        ("ewc", 1, Way("ewc.trec")),
        ("average", 1, Way(preset="average", tag="continual-1")),
        ("s-prompts", 2, Way(preset="retrieval", tag="alone-2")),
        ("dam", 2, Way(preset="dam", tag="continual-2")),
        ("sailplane", 0, Way(preset="default", tag="continual-0")),
        ("multitask", 1, Way("together")),
        ("oracle", 2, Way("sst2")),
        ("oracle-alone", 2, Way("alone.sst2")),
    ],
)
def test_the_first_task_is_answered_by(row, step, way):
    assert ROWS[row].way(ORDER, step, 0) == way


def test_a_task_is_asked_from_the_step_on_that_brings_it():
    found = {(task, row): ways for task, row, ways in ways_of(list(ROWS.values()), ORDER)}
    assert [w.name for w in found[1, "dam"]] == ["dam@continual-1", "dam@continual-2"]
    assert [w.name for w in found[2, "sequential"]] == ["sick"]
    assert [w.name for w in found[0, "oracle"]] == ["sst2"], "once is enough where nothing changes"
