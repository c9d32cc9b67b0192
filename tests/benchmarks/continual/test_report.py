"""Figures of a stream: by hand from small matrices."""

import pytest

from benchmarks.continual.report import final, forgetting, gains, steps, targets
from benchmarks.continual.rows import APART, DAM, DEFAULT, PROMPTS, ROWS, SEQUENTIAL


def row(*finals, forgetting=-1.0):
    """A row's figures, a final accuracy a seed."""
    seeds = [{"final": f, "forgetting": forgetting} for f in finals]
    return {"final": sum(finals) / len(finals), "forgetting": forgetting, "seeds": seeds}


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
        return {"near": {"lora": {r: row(f, forgetting=lost) for r, f in by_row.items()}}}

    assert [t.holds for t in targets(rows(76.5, -2.2))] == [True] * 4
    assert [t.holds for t in targets(rows(75.5, -2.4))] == [True, True, False, False]
    assert [t.holds for t in targets(rows(70.3, -2.3))] == [False] * 4


def test_a_target_tells_each_seed():
    rows = {SEQUENTIAL: row(60.0, 61.0), PROMPTS: row(79.0, 81.5), DAM: row(80.0, 80.0),
            DEFAULT: row(80.0, 81.0)}  # fmt: skip
    found = targets({"near": {"lora": rows}})
    assert [t.seeds for t in found] == [(20.0, 20.0), (1.0, -0.5), (0.0, 1.0), (-1.0, -1.0)]
    assert [t.value for t in found] == [20.0, 0.25, 0.5, -1.0]


def test_rows_that_were_not_asked_have_no_targets():
    assert targets({"near": {"lora": {DAM: {"final": 1.0}}}}) == []


def test_rows_and_their_twins_apart_differ_in_the_chain_alone():
    for row, apart in APART.items():
        assert (ROWS[row].chain, ROWS[apart].chain) == ("continual", "alone")
        assert ROWS[row].by == ROWS[apart].by


def test_gains_are_of_pairs_that_were_both_asked():
    rows = {DAM: row(80.0, 80.0), APART[DAM]: row(79.5, 77.5, forgetting=-3), DEFAULT: row(90.0)}
    (gain,) = gains({"near": {"lora": rows}})
    assert (gain.row, gain.points, gain.forgetting) == (DAM, 1.5, (-1.0, -3))
    assert gain.seeds == (0.5, 2.5)
