"""`sailplane route` explains one question, for people and as JSON."""

import json

import pytest

from experts.backbones.tiny import tiny_causal
from routers.types import Selection
from server.cli.route import SHOWN, _answer, _candidates
from server.engine.messages import Answer, CandidateTrace, Choice, Trace
from tests.server.api.writing_material import TASKS, write_library


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


QUESTION = ("Will it rain?", "--choices", "yes,no", "--instructions", "Answer.")


@pytest.fixture
def kept(route, tmp_path):
    """A trace as `--json` prints it."""
    path = tmp_path / "trace.json"
    path.write_text(route(*QUESTION, "--json").stdout)
    return path


def test_a_replay_alone_gives_the_same_selection(route, kept):
    result = route("--replay", str(kept))
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == "same selection"


def test_a_router_and_a_top_k_of_the_trace_hold_where_no_setting_says_otherwise(route, tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(route(*QUESTION, "--json", "--router", "average", "--top-k", "1").stdout)
    assert route("--replay", str(path)).exit_code == 0
    other = route("--replay", str(path), "--router", "base", "--json")
    assert other.exit_code == 1
    told = json.loads(other.stdout)
    assert {"kind": "router", "expert": None, "before": "average", "after": "base"} in told[
        "changes"
    ]
    assert told["same"] is False
    assert (told["before"]["mode"], told["after"]["mode"]) == ("single", "base")


def test_a_replay_says_what_changed_in_the_library(run, route, kept, library):
    removed = run("experts", "remove", "weather", "--library", str(library), "--yes")
    assert removed.exit_code == 0, removed.output
    result = route("--replay", str(kept))
    assert result.exit_code == 1
    assert "weather" in result.stdout
    assert "was removed" in result.stdout


def test_a_forced_expert_that_is_gone_is_a_change_and_not_a_crash(run, route, library, tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(route("Will it rain?", "--model", "mood", "--json").stdout)
    assert route("--replay", str(path)).exit_code == 0
    assert run("experts", "remove", "mood", "--library", str(library), "--yes").exit_code == 0
    result = route("--replay", str(path))
    assert result.exit_code == 1
    assert "cannot be routed now" in result.stdout
    assert "No model 'mood'" in result.stdout


def test_a_response_of_the_server_is_replayed_with_its_question(route, kept, tmp_path):
    trace = json.loads(kept.read_text())["trace"]
    response = tmp_path / "response.json"
    response.write_text(json.dumps({"routing": {"questions": [None, trace]}}))
    replay = ("--replay", str(response), "--question", "1")
    assert route(*replay, "Will it rain?", "--choices", "yes,no").exit_code == 0


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ((), "give INPUT"),
        (("Will it rain?",), "give them with --choices"),
        (("--choices", "yes,no"), "give INPUT"),
    ],
)
def test_a_trace_without_its_question_says_what_is_missing(route, kept, tmp_path, more, reason):
    told = json.loads(kept.read_text())["trace"]
    told["candidates"] = [{"id": "weather", "score": 1, "views": {"choices": 1}}]
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(told))
    result = route("--replay", str(bare), *more)
    assert result.exit_code == 2
    assert reason in result.output


def test_a_file_that_is_not_there_is_told(route):
    result = route("--replay", "nothing.json")
    assert result.exit_code == 2
    assert "nothing.json: No such file" in result.output


def test_a_question_is_said_once(route, kept):
    result = route("Will it rain?", "--replay", str(kept))
    assert result.exit_code == 2
    assert "leave out INPUT" in result.output


def test_without_input_or_replay_there_is_nothing_to_route(route):
    assert route().exit_code == 2
    assert route("Will it rain?", "--question", "1").exit_code == 2


@pytest.fixture
def writer(run, tmp_path):
    """`writer("input", ...)` on a tiny library that writes."""
    write_library(tmp_path / "texts", tiny_causal())
    place = ("--backbone", "tiny-causal", "--library", str(tmp_path / "texts"), "--threads", "1")
    return lambda *more: run("route", *more, *place)


def test_without_choices_a_backbone_that_writes_answers_with_a_text(writer):
    said = ("1 + 2", "--instructions", TASKS["sum"])
    shown = writer(*said)
    assert shown.exit_code == 0, shown.output
    told = json.loads(writer(*said, "--json").stdout)
    text = told["answer"]["text"]
    assert len(text) > 3
    assert f"Text: {text.splitlines()[0]}" in shown.stdout
    assert told["trace"]["selection"]["experts"][0]["id"] == "sum"
    other = json.loads(writer("1 + 2", "--model", "plural", "--json").stdout)
    assert other["answer"]["text"] != text


def test_a_text_is_replayed_by_its_routing(writer, tmp_path):
    kept = tmp_path / "kept.json"
    kept.write_text(writer("1 + 2", "--instructions", TASKS["sum"], "--json").stdout)
    assert writer("--replay", str(kept)).exit_code == 0


def test_with_choices_a_backbone_that_writes_ranks_them(writer):
    shown = writer("1 + 2", "--choices", "3,4")
    assert "probability" in shown.stdout
    assert "Text:" not in shown.stdout
