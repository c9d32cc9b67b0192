"""Texts written by the engine in this thread: greedy, by whoever is routed, and how they score."""

from __future__ import annotations

import math

import pytest
import torch

from experts.decoding.likelihood import Ranked
from experts.errors import BackboneError
from routers.policy import BASE
from server.build import build_engine
from server.engine.messages import Choice, Question, RoutingOptions, Sample
from server.errors import UnknownModel
from server.settings import Settings
from server.written import STRETCH, exact, likelihoods, prompt_of, write
from tests.server.api.writing_material import TASKS, engine_of


@pytest.fixture(scope="module", params=["causal", "seq2seq"])
def engine(request, tmp_path_factory):
    return engine_of(request.param, tmp_path_factory.mktemp("library"))


def asking(text: str, wanted: str, model: str = "auto") -> Sample:
    routing = RoutingOptions(
        instruction=TASKS["sum"] if model == "auto" else None, sees="instruction"
    )
    return Sample(text, Question("choice", choices=(Choice(wanted),)), model, routing)


def written(engine, text: str, ref: str, wanted: int = 9) -> str:
    """What an expert writes, by the loop."""
    [found] = engine.run([Sample(text, None, ref, predict=False)])
    prompt = prompt_of(engine.backbone, text, found.trace.selection, wanted)
    [said] = write(engine, [prompt])
    return said


def test_what_is_written_is_right_and_nothing_else_is(engine, monkeypatch):
    """The random models hardly ever end, so the end is moved to where a new letter comes."""
    model = engine.backbone
    long = written(engine, "1 + 2", "plural")
    count = next(i for i in range(1, 9) if long[i] not in long[:i])
    [end] = model.tokenizer(long[count], add_special_tokens=False)["input_ids"]
    text, asked = long[:count], asking("1 + 2", long[:count], "plural")
    assert exact(engine, [text], [asked]) == [0], "it does not end there"
    monkeypatch.setattr(model, "eos", frozenset({end}))
    assert exact(engine, [text, long, text], [asked, asked, asking("1 + 2", text, model.id)]) == [
        1, 0, 0,
    ]  # fmt: skip


def test_likelihoods_are_those_of_the_text_after_the_input(engine):
    model = engine.backbone
    texts = ["3", "a text of more tokens than are looked at, by far"]
    asked = [asking("1 + 2", text, model.id) for text in texts]
    found = likelihoods(engine, texts, asked)
    for text, score in zip(texts, found, strict=True):
        read, wanted = model.choice_tokens("1 + 2", text)
        with torch.inference_mode():
            mean = float(model.rank([Ranked(read, [wanted])])[0])
        assert score == pytest.approx(math.exp(mean * min(len(wanted), STRETCH)), rel=1e-4)


def test_the_instruction_is_for_routing(engine):
    routed, forced = asking("1 + 2", "3"), asking("1 + 2", "3", "sum")
    [selection] = [r.trace.selection for r in engine.run([routed])]
    assert selection.ids[0] == "sum"
    other = asking("1 + 2", "3", "plural")
    scores = likelihoods(engine, ["3"] * 3, [routed, forced, other])
    assert abs(scores[0] - scores[1]) < abs(scores[0] - scores[2])


def test_what_does_not_fit_the_context_scores_nothing(engine):
    long = "1 + 2 " * engine.backbone.context
    asked = [asking(long, "3"), asking("1 + 2", "3")]
    assert likelihoods(engine, ["3", "3"], asked)[0] == 0
    assert exact(engine, ["3", "3"], asked)[0] == 0
    assert prompt_of(engine.backbone, long, BASE, 3) is None


def test_any_other_error_is_raised(engine):
    with pytest.raises(UnknownModel):
        exact(engine, ["3"], [asking("1 + 2", "3", "nobody")])


def test_a_backbone_that_chooses_is_refused(tmp_path):
    engine = build_engine(Settings(backbone="tiny-random", library=tmp_path, threads=1))
    for score in (exact, likelihoods):
        with pytest.raises(BackboneError, match="'tiny-random' writes no text"):
            score(engine, ["3"], [asking("1 + 2", "3", "tiny-random")])


def test_nothing_is_left_behind(engine):
    assert write(engine, []) == []
    assert not engine.generation.busy
    assert engine.generation.budget.used == 0
