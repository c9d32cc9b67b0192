"""The load's checks: what is right passes, and every way of being wrong is told."""

import copy
import json
from pathlib import Path

import pytest

from deploy.load import answers
from deploy.load.answers import Wrong

KNOWN = {"snips", "sst2"}
ASKED = {
    "model": "auto",
    "input": "Play some jazz.",
    "questions": [
        {"type": "choice", "instructions": "What?", "choices": [{"value": "a"}, {"value": "b"}]},
        {"type": "predicate", "instructions": "It is."},
        {"type": "score", "instructions": "How?", "levels": [{"label": "low"}, {"label": "high"}]},
    ],
    "routing": {"trace": "full"},
}
TRACE = {
    "selection": {"experts": [{"id": "snips", "weight": 0.7}, {"id": "sst2", "weight": 0.3}]},
    "candidates": [{"id": "snips"}],
    "instruction": "What?",
    "writer": "caller",
    "cache": {},
    "milliseconds": {},
    "tokens": [],
}
TOLD = {
    "model": "auto",
    "answers": [
        {
            "type": "choice",
            "choice": "b",
            "confidence": 0.75,
            "probabilities": [
                {"value": "a", "probability": 0.25},
                {"value": "b", "probability": 0.75},
            ],
        },
        {"type": "predicate", "probability": 0.5},
        {
            "type": "score",
            "score": 0.25,
            "confidence": 0.75,
            "probabilities": [
                {"value": 0, "label": "low", "probability": 0.75},
                {"value": 1, "label": "high", "probability": 0.25},
            ],
        },
    ],
    "usage": {"input_tokens": 9, "output_tokens": 0, "total_tokens": 9},
    "routing": {"questions": [TRACE] * 3},
}
CHANGES = {
    "an answer is missing": lambda t: t["answers"].pop(),
    "answers change places": lambda t: t["answers"].reverse(),
    "the choice is another": lambda t: t["answers"][0].update(choice="a"),
    "choices change places": lambda t: t["answers"][0]["probabilities"].reverse(),
    "probabilities sum to more": lambda t: t["answers"][0]["probabilities"][0].update(
        probability=0.3
    ),
    "a probability above 1": lambda t: t["answers"][1].update(probability=1.2),
    "the confidence is another": lambda t: t["answers"][0].update(confidence=0.7),
    "the score is another": lambda t: t["answers"][2].update(score=0.5),
    "a choice is refused": lambda t: t["answers"].__setitem__(
        0, {"type": "refusal", "reason": "no"}
    ),
    "a trace is missing": lambda t: t["routing"]["questions"].pop(),
    "a trace is none": lambda t: t["routing"]["questions"].__setitem__(0, None),
    "an expert is not there": lambda t: t["routing"]["questions"][0]["selection"]["experts"][
        0
    ].update(id="gone"),
    "a candidate is not there": lambda t: t["routing"]["questions"][0]["candidates"][0].update(
        id="gone"
    ),
    "weights sum to less": lambda t: t["routing"]["questions"][0]["selection"]["experts"].pop(),
    "the full trace is not full": lambda t: t["routing"]["questions"][0].update(cache=None),
    "another model": lambda t: t.update(model="sst2"),
    "nothing was read": lambda t: t["usage"].update(input_tokens=0, total_tokens=0),
    "usage does not add up": lambda t: t["usage"].update(total_tokens=10),
}


def test_a_right_decision_passes():
    answers.decision(ASKED, TOLD, KNOWN, ["b"])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_wrong_decision_does_not(change):
    told = copy.deepcopy(TOLD)
    change(told)
    with pytest.raises(Wrong):
        answers.decision(ASKED, told, KNOWN, labelled=KNOWN)


def test_a_sure_answer_must_be_given():
    with pytest.raises(Wrong, match="'a'"):
        answers.decision(ASKED, TOLD, KNOWN, ["a"])


def test_a_statement_may_be_refused_where_nobody_chosen_can_judge_it():
    told = copy.deepcopy(TOLD)
    told["answers"][1] = {"type": "refusal", "reason": "No statements."}
    answers.decision(ASKED, told, KNOWN, labelled={"trec"})
    with pytest.raises(Wrong, match="No statements"):
        answers.decision(ASKED, told, KNOWN, labelled={"sst2"})


def test_who_names_an_expert_gets_it_alone():
    asked, told = ASKED | {"model": "sst2"}, copy.deepcopy(TOLD) | {"model": "sst2"}
    with pytest.raises(Wrong, match="was not forced"):
        answers.decision(asked, told, KNOWN)


def vectors(*parts):
    data = [{"index": i, "embedding": list(p)} for i, p in enumerate(parts)]
    selection = {"experts": [{"id": "snips", "weight": 1.0}]}
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return {"data": data, "usage": usage, "routing": {"selection": selection}}


def test_embeddings():
    asked = {"model": "auto", "input": ["x", "y", "x"]}
    one, other = (0.6, 0.8), (0.8, -0.6)
    right = vectors(one, other, one)
    assert answers.embeddings(asked, right, 2, KNOWN) == [[0.6, 0.8], [0.8, -0.6], [0.6, 0.8]]
    for wrong, width, why in (
        (vectors(one, other), 2, "missing"),
        (vectors(one, other, other), 2, "equal texts"),
        (vectors(one, (0.8, 0.8), one), 2, "length"),
        (right, 3, "2 numbers"),
    ):
        with pytest.raises(Wrong, match=why):
            answers.embeddings(asked, wrong, width, KNOWN)
    with pytest.raises(Wrong, match="not there"):
        answers.embeddings(asked, right, 2, {"sst2"})


def test_errors_and_refusals():
    full = {"error": {"message": "Full.", "type": "t", "param": None, "code": "queue_full"}}
    answers.error(full, "queue_full")
    answers.refused(503, {"retry-after": "2"}, full)
    with pytest.raises(Wrong, match="code"):
        answers.error(full, "model_not_found")
    for headers in ({}, {"retry-after": "soon"}, {"retry-after": "0"}):
        with pytest.raises(Wrong, match="Retry-After"):
            answers.refused(503, headers, full)


def test_every_sure_answer_is_a_choice():
    told = json.loads((Path(answers.__file__).with_name("questions.json")).read_text("utf-8"))
    for task in told["tasks"]:
        assert task["texts"]
        assert {answer for _, answer in task["sure"]} <= set(task["choices"])
