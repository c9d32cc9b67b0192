"""`sailplane route` explains one question, for people and as JSON."""

import json

import pytest

from routers.types import Selection
from server.cli.route import SHOWN, _answer, _candidates
from server.engine.messages import Answer, CandidateTrace, Choice, Trace


@pytest.fixture
def route(run, library):
    """`route("text", ...)` on the small library."""
    return lambda *more: run(
        "route", *more, "--backbone", "tiny-random", "--library", str(library)
    )  # fmt: skip


def test_it_shows_candidates_selection_and_answer(route):
    result = route("Will it rain?", "--choices", "yes, no", "--instructions", "Answer.")
    assert result.exit_code == 0, result.output
    assert "Instruction (caller): Answer." in result.stdout
    assert "weather" in result.stdout
    assert "Selection (" in result.stdout
    assert "yes" in result.stdout
    assert "%" in result.stdout


def test_json_holds_the_whole_trace(route):
    result = route("Will it rain?", "--choices", "yes,no", "--json")
    told = json.loads(result.stdout)
    assert sum(told["answer"]["probabilities"]) == pytest.approx(1)
    assert [c["value"] for c in told["answer"]["choices"]] == ["yes", "no"]
    assert told["trace"]["selection"]["reason"]


def test_naming_an_unknown_model_is_told(route):
    result = route("Will it rain?", "--choices", "yes,no", "--model", "wether")
    assert result.exit_code == 1
    assert "wether" in result.output


def test_only_the_best_candidates_are_listed():
    candidates = tuple(CandidateTrace(f"e{i}", 1 - i / 100, {"input": 0.5}) for i in range(20))
    table = _candidates(Trace("default", Selection(mode="base"), candidates=candidates))
    assert table.row_count == SHOWN
    assert [column.header for column in table.columns] == ["expert", "score", "input", "weight"]


def test_a_refusal_is_shown_as_such():
    assert "no label set" in str(_answer(Answer(refusal="no label set")))


def test_options_are_sorted_by_probability():
    table = _answer(Answer((0.2, 0.8), (Choice("a"), Choice("b"))))
    assert list(table.columns[0].cells) == ["b", "a"]
