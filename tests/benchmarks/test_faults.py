"""The page on faults says what the table says."""

from benchmarks.faults import page

ROWS = [
    {"fault": "kill -9", "rounds": 200, "lost": 0, "hung": 0, "ended": "the old; the new"},
    {"fault": "disk full", "rounds": 3, "lost": 1, "hung": 2, "ended": "503"},
]


def test_each_fault_is_a_row_and_all_are_summed():
    lines = page(ROWS, "at abc")
    assert "| kill -9 | 200 | 0 | 0 | the old; the new |" in lines
    assert "| disk full | 3 | 1 | 2 | 503 |" in lines
    assert "| all | 203 | 1 | 2 |  |" in lines
    assert any("at abc" in line for line in lines)
