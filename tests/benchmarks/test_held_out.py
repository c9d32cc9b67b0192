"""The log of runs that ask held-out test files."""

import json

import pytest

from benchmarks.continual.cells import Questions
from benchmarks.continual.plan import Plan
from benchmarks.held_out import LOG, note_run
from experts.training.data import Task


def test_a_run_is_a_line_and_former_lines_stay(tmp_path):
    log = tmp_path / "there" / "log.jsonl"
    for limit in (None, 3):
        note_run(log, task="rte", limit=limit)
    first, second = (json.loads(line) for line in log.read_text().splitlines())
    assert (first["task"], first["limit"], second["limit"]) == ("rte", None, 3)
    assert first["date"] <= second["date"]
    assert first["commit"]


@pytest.mark.parametrize(
    ("held", "aside", "told"),
    [("held_out", False, True), ("held_out", True, False), ("held_in", False, False)],
)
def test_streams_know_when_they_ask_a_held_out_test_file(tmp_path, held, aside, told):
    assert Questions(Task(tmp_path / held / "rte"), aside, None).held_out is told


def test_only_what_documents_report_is_noted_with_them(tmp_path):
    assert Plan().held_out_log == LOG
    assert Plan(limit=3, cache=tmp_path).held_out_log.is_relative_to(tmp_path)
