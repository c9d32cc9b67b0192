"""What a replay reads, what it calls the same, and what it names as changed."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.types import Chosen, Selection
from routers.weighing import STRENGTHS
from server.api.traces import CandidateBody, CutBody, TraceBody
from server.errors import ReplayError
from server.replay import (
    SCORE,
    WEIGHT,
    Asked,
    Change,
    Now,
    compare,
    read_recording,
    same_selection,
)

NOW = Now({"a": 1, "b": 1, "c": 1})


def trace(
    scores: dict[str, float],
    chosen: Sequence[str] = ("a",),
    versions: dict[str, int] | None = None,
    **more: object,
) -> TraceBody:
    versions = versions or {}
    experts = tuple(
        Chosen(id=id, version=versions.get(id, 1), weight=1 / len(chosen)) for id in chosen
    )
    told = {
        "router": "glider",
        "selection": Selection(mode="single" if len(chosen) == 1 else "merge", experts=experts),
        "instruction": "Say.",
        "writer": "caller",
        "candidates": [
            CandidateBody(id=id, version=versions.get(id, 1), score=score, views={})
            for id, score in scores.items()
        ],
        "calibration": "one",
        "generation": "aa",
        "dropped": {},
        "replaced": [],
        "truncated": [],
    }
    return TraceBody.model_validate({**told, **more})


BEFORE = trace({"a": 0.9, "b": 0.4})


def changes(after: TraceBody | str, now: Now = NOW, asked: Asked | None = None) -> list[Change]:
    return list(compare(BEFORE, after, now, asked).changes)


def test_the_same_trace_has_not_changed():
    compared = compare(BEFORE, BEFORE, NOW)
    assert compared.same
    assert compared.changes == ()


@pytest.mark.parametrize(
    ("more", "change"),
    [
        ({"router": "dam"}, Change("router", None, "glider", "dam")),
        ({"calibration": "two"}, Change("calibration", None, "one", "two")),
        ({"generation": "bb"}, Change("generation", None, "aa", "bb")),
        ({"instruction": "Tell."}, Change("instruction", None, "Say.", "Tell.")),
        ({"writer": "template"}, Change("writer", None, "caller", "template")),
        ({"replaced": ["c"]}, Change("load", "c", "loaded", "fails")),
        (
            {"truncated": [CutBody(part="input", tokens_sent=9, tokens_kept=8)]},
            Change("truncated", None, {}, {"input": (9, 8)}),
        ),
    ],
)
def test_a_rule_that_changed_is_named(more, change):
    assert changes(trace({"a": 0.9, "b": 0.4}, **more)) == [change]


def test_a_setting_that_changed_is_named_where_the_question_is_known():
    asked = Asked(input="x", backbone="old", top_k=2)
    now = Now(NOW.versions, backbone="new")
    assert changes(BEFORE, now, asked) == [
        Change("backbone", None, "old", "new"), Change("top_k", None, 2, None),
    ]  # fmt: skip


def test_an_expert_of_another_version_is_named_with_its_score():
    after = trace({"a": 0.7, "b": 0.4}, versions={"a": 2})
    compared = compare(BEFORE, after, Now({"a": 2, "b": 1}))
    assert not compared.same
    assert compared.changes == (Change("version", "a", 1, 2), Change("score", "a", 0.9, 0.7))


def test_experts_that_are_gone_or_bad_are_named():
    after = trace({"c": 0.1}, chosen=["c"])
    assert changes(after, Now({"c": 1}, {"b": "its file is torn"})) == [
        Change("removed", "a", 1),
        Change("bad", "b", 1, "its file is torn"),
        Change("added", "c", None, 0.1),
    ]


def test_without_a_trace_the_error_is_told_with_what_is_gone():
    compared = compare(BEFORE, "No model 'a'.", Now({"b": 1}))
    assert (compared.same, compared.after) == (False, None)
    assert compared.changes == (Change("removed", "a", 1), Change("error", after="No model 'a'."))


def test_who_is_below_the_candidates_shown_has_not_appeared():
    full = {f"e{i}": 0.9 - i / 10 for i in range(8)}
    now = Now(dict.fromkeys([*full, "x"], 1))
    shifted = {**dict(list(full.items())[:7]), "x": 0.2}
    before, after = trace(full, ["e0"]), trace(shifted, ["e0"])
    assert compare(before, after, now).changes == (), "e7 and x tie at the floor: nothing is known"
    risen = trace({"x": 0.95, **dict(list(full.items())[:7])}, ["x"])
    assert compare(before, risen, now).changes == (Change("added", "x", None, 0.95),)


def test_scores_of_two_routers_are_not_compared():
    after = trace({"a": 0.1, "b": 0.2}, router="dam")
    assert changes(after) == [Change("router", None, "glider", "dam")]


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1), min_size=1),
    st.floats(-0.9 * SCORE, 0.9 * SCORE),
)
def test_rounding_is_no_change(scores, noise):
    chosen = [max(scores, key=scores.__getitem__)]
    before = trace(scores, chosen)
    after = trace({id: score + noise for id, score in scores.items()}, chosen)
    compared = compare(before, after, Now(dict.fromkeys(scores, 1)))
    assert compared.same
    assert compared.changes == ()


def hedged(confidence: float | None, strength: float, **more: object) -> TraceBody:
    """A trace of the default preset."""
    chosen = Selection(mode="single", experts=(Chosen(id="a", weight=1.0),), strength=strength)
    return trace({"a": 0.9}, router="sailplane", selection=chosen, confidence=confidence, **more)


def rounded(confidence: float, unsure: float) -> float:
    """The strength that the hedged rule gives."""
    return round((confidence + (1 - confidence) * unsure) * STRENGTHS) / STRENGTHS


@given(st.floats(0, 1), st.floats(-0.9 * WEIGHT, 0.9 * WEIGHT), st.floats(0, 1))
def test_a_strength_at_an_edge_of_its_steps_is_no_change(confidence, noise, unsure):
    nearly = min(1.0, max(0.0, confidence + noise))
    before = hedged(confidence, rounded(confidence, unsure))
    after = hedged(nearly, rounded(nearly, unsure))
    assert compare(before, after, NOW).same
    assert compare(after, before, NOW).same


EDGE = hedged(0.1, 0.5), hedged(0.1005, 0.55)


def test_there_are_such_edges():
    assert [rounded(t.confidence, 0.472) for t in EDGE] == [0.5, 0.55]
    assert compare(*EDGE, NOW).same


@pytest.mark.parametrize(
    "after",
    [
        hedged(0.102, 0.55),
        hedged(0.1005, 0.6),
        hedged(0.1005, 0.45, calibration="two"),
        hedged(None, 0.55),
    ],
)
def test_a_strength_that_moved_by_more_than_rounding_is_a_change(after):
    """Surer, two steps, by other constants, or named by the caller."""
    assert not compare(EDGE[0], after, NOW).same
    assert not compare(after, EDGE[0], NOW).same


WEIGHTS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1)


def selection(weights: dict[str, int], order: Sequence[str] | None = None) -> Selection:
    total = sum(weights.values())
    experts = tuple(Chosen(id=id, weight=weights[id] / total) for id in order or weights)
    return Selection(mode="merge", experts=experts)


@given(WEIGHTS, st.data())
def test_the_order_of_experts_does_not_make_a_selection(weights, data):
    order = data.draw(st.permutations(list(weights)))
    one, other = selection(weights), selection(weights, order)
    assert same_selection(one, other)
    assert same_selection(other, one)


@given(WEIGHTS, WEIGHTS)
def test_other_experts_or_weights_do(ours, theirs):
    one, other = selection(ours), selection(theirs)
    shares = ({e.id: e.weight for e in s.experts} for s in (one, other))
    assert same_selection(one, other) == (next(shares) == pytest.approx(next(shares), abs=1e-3))


@pytest.mark.parametrize(
    "change",
    [
        {"strength": 0.5},
        {"mode": "token", "token_router": "gate"},
        {"experts": ()},
        {"experts": (Chosen(id="a", version=2, weight=1.0),)},
        {"experts": (Chosen(id="a", weight=1.0, fixed=True),)},
    ],
)
def test_all_that_a_forward_pass_reads_makes_a_selection(change):
    one = Selection(mode="single", experts=(Chosen(id="a", weight=1.0),))
    assert same_selection(one, one.model_copy(update={"reason": "in other words", "top_k": 7}))
    assert not same_selection(one, one.model_copy(update=change))


BARE = BEFORE.model_dump(mode="json")


@pytest.mark.parametrize(
    "told",
    [
        BARE,
        {"trace": BARE, "tokens": 3},
        {"model": "auto", "routing": {"questions": [BARE]}},
        {"object": "list", "routing": {"selection": BARE["selection"], "trace": BARE}},
        {"id": "x", "response": {"status_code": 200, "body": {"routing": {"questions": [BARE]}}}},
        {**BARE, "a_field_of_tomorrow": 1},
    ],
)
def test_a_trace_is_found_whoever_wrote_it(told):
    recording = read_recording(json.dumps(told).encode())
    assert recording.trace == BEFORE
    assert recording.asked is None


def test_of_several_traces_one_is_named():
    told = json.dumps({"routing": {"questions": [None, BARE]}}).encode()
    assert read_recording(told, 1).trace == BEFORE
    for question, reason in ((None, "name one"), (0, "no trace"), (2, "there are 2")):
        with pytest.raises(ReplayError, match=reason):
            read_recording(told, question)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "JSON object"),
        (b"{}", "This is no trace. router: Field required"),
        (b'{"error": {"code": "x"}}', "an error has no trace"),
        (b'{"routing": {"questions": []}}', "There is no trace of question 0"),
        (b'{"response": null}', "This is no trace"),
        (json.dumps({"asked": {"input": 1}, "trace": BARE}).encode(), "input: Input should be"),
    ],
)
def test_what_holds_no_trace_is_told(data, reason):
    with pytest.raises(ReplayError, match=reason):
        read_recording(data)
