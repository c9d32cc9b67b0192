"""Figures of a stream: by hand from small matrices."""

import pytest

from benchmarks.continual.report import final, forgetting, steps, targets
from benchmarks.continual.rows import DAM, DEFAULT, PROMPTS, SEQUENTIAL

MATRIX = [[0.9], [0.7, 0.8], [0.5, 0.9, 0.6]]


def test_steps_are_means_over_the_tasks_so_far():
    assert steps(MATRIX) == pytest.approx([90.0, 75.0, 100 * 2 / 3])
    assert final(MATRIX) == pytest.approx(100 * 2 / 3)


def test_forgetting_is_what_all_but_the_last_task_lost():
    """Negative where accuracy was lost, positive where a later expert helps."""
    assert forgetting(MATRIX) == pytest.approx(((50 - 90) + (90 - 80)) / 2)
    assert forgetting([[0.9]]) == 0


def test_targets_hold_on_their_own_side_of_the_line():
    def rows(ours, lost):
        by_row = {SEQUENTIAL: 60.0, PROMPTS: 75.0, DAM: 76.0, DEFAULT: ours}
        return {"near": {"lora": {r: {"final": f, "forgetting": lost} for r, f in by_row.items()}}}

    assert [t.holds for t in targets(rows(76.5, -2.2))] == [True] * 4
    assert [t.holds for t in targets(rows(75.5, -2.4))] == [True, True, False, False]
    assert [t.holds for t in targets(rows(70.3, -2.3))] == [False] * 4


def test_rows_that_were_not_asked_have_no_targets():
    assert targets({"near": {"lora": {DAM: {"final": 1.0}}}}) == []
