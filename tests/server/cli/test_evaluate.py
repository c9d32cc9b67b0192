"""`sailplane evaluate`: its table, its JSON, and what it refuses."""

import json
from pathlib import Path

import pytest

TASKS = Path(__file__).parents[2] / "data" / "tasks"


@pytest.fixture
def evaluate(run, library):
    """On our own examples of two tasks, none of which the small library has an expert for."""
    return lambda *more: run(
        "evaluate", "--tasks", str(TASKS), "--only", "subj,mrpc", "--threads", "1", *more,
        "--backbone", "tiny-random", "--library", str(library),
    )  # fmt: skip


def test_the_table_has_a_row_for_each_task_and_a_mean(evaluate):
    result = evaluate("--router", "default,base,oracle", "--limit", "4")
    assert result.exit_code == 0, result.output
    cells = [
        [cell.strip() for cell in line.strip("│ ").split("│")]
        for line in result.stdout.splitlines()
        if "│" in line
    ]
    assert [row[0] for row in cells] == ["mrpc", "subj", "mean"]
    assert all(row[3] == "-" for row in cells), "no expert of its own, so no oracle"
    assert all(float(row[2]) % 25 == 0 for row in cells[:2])


def test_figures_are_written_as_json(evaluate, tmp_path):
    path = tmp_path / "figures.json"
    assert evaluate("--router", "base,oracle", "--limit", "4", "--json", str(path)).exit_code == 0
    told = json.loads(path.read_text())
    assert set(told) == {"means", "tasks"}
    assert told["means"]["oracle"] is None
    assert told["tasks"].keys() == {"mrpc", "subj"}


def test_an_unknown_router_is_told_with_those_there_are(evaluate):
    result = evaluate("--router", "default,gliderr")
    assert result.exit_code == 1
    assert "unknown router: gliderr" in result.output
    assert "glider" in result.output
