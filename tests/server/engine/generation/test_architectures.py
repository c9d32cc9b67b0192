"""Adapters that PEFT wrote, for models of many architectures, write what they write in PEFT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from experts.backbones import open_backbone
from experts.decoding.likelihood import Ranked
from experts.mix import build_mix
from experts.stacks import stack_experts
from server.engine.passes import row_mix
from tests.architectures import ARCHITECTURES, Checkpoint, served, write_checkpoint
from tests.language_models import ask, finish, merged, prompts, single

WHO = {
    "bare": single(None),
    "a": single("a"),
    "b": single("b"),
    "a and b": merged({"a": 0.3, "b": 0.7}),
}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    root = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    return write_checkpoint(root, request.param, {"a": 4, "b": 2})


@pytest.fixture(scope="module")
def in_peft(checkpoint: Checkpoint) -> dict[str, Any]:
    """The model by who writes; PEFT's "cat" is the exact sum of weighted deltas."""
    models = {who: checkpoint.in_peft(None if who == "bare" else who) for who in ("bare", "a", "b")}
    both = checkpoint.in_peft("a")
    both.load_adapter(checkpoint.adapters["b"], "b")
    both.add_weighted_adapter(["default", "b"], [0.3, 0.7], "both", combination_type="cat")
    both.set_adapter("both")
    return {**models, "a and b": both}


@pytest.fixture
def exact(checkpoint: Checkpoint) -> dict[str, float]:
    """Gemma 2 takes the softmax of its attention in float32 in transformers, whatever the type."""
    tolerance = 1e-5 if checkpoint.architecture == "gemma2" else 1e-9
    return {"rtol": tolerance, "atol": tolerance}


def test_a_mixed_batch_writes_what_each_row_writes_in_peft(checkpoint, in_peft, exact, tmp_path):
    rows = list(zip(prompts(3, 5, 17, 9, 30, 5, 17), [*WHO, "a", "bare"], strict=True))
    with served(checkpoint, tmp_path / "library") as loop:
        asked = [ask(loop, p, WHO[who], max_tokens=20, logprobs=0) for p, who in rows]
        finish(loop)
    for told, (prompt, who) in zip(asked, rows, strict=True):
        assert told.error is None
        written = [*checkpoint.forced, *told.tokens()]
        assert written == checkpoint.written(in_peft[who], prompt, 20 + len(checkpoint.forced))
        logit_TV = checkpoint.logits(in_peft[who], prompt, written)[len(checkpoint.forced) :]
        expected = logit_TV.log_softmax(-1)[range(len(logit_TV)), told.tokens()].tolist()
        found = [t.logprob for piece in told.pieces_of() for t in piece.tokens]
        torch.testing.assert_close(found, expected, **exact)
    texts = {who: checkpoint.written(model, rows[1][0], 20) for who, model in in_peft.items()}
    assert len({*map(tuple, texts.values())}) == len(texts), "all experts write the same"


def test_choices_are_as_likely_as_in_peft(checkpoint, in_peft, exact, tmp_path):
    texts = prompts(4, 9, 3, 14, 1)
    ranked = [Ranked(text, prompts(10 + i, 1, 4, 9)) for i, text in enumerate(texts)]
    with served(checkpoint, tmp_path / "library") as loop, loop.tiers.pin(["a@1", "b@1"]) as lease:
        stack = stack_experts([*lease.experts.values()])
        mix = build_mix([row_mix(selection) for selection in WHO.values()], [stack])
        with torch.inference_mode():
            found = loop.backbone.rank(ranked, mix)
    for one, model, found_C in zip(ranked, in_peft.values(), found, strict=True):
        expected = []
        for choice in one.choices:
            written = [*checkpoint.forced, *choice]
            logit_TV = checkpoint.logits(model, one.text, written)[len(checkpoint.forced) :]
            logprob_TV = logit_TV.log_softmax(-1)
            expected.append(float(logprob_TV[range(len(choice)), choice].mean()))
        torch.testing.assert_close(found_C.tolist(), expected, **exact)


def test_texts_are_read_as_transformers_reads_them(checkpoint, in_peft, exact, texts):
    backbone = open_backbone(str(checkpoint.folder), dtype="float64")
    model = in_peft["bare"]
    causal = checkpoint.family == "causal"
    reader = getattr(model, model.base_model_prefix) if causal else model.get_encoder()
    expected = []
    for row in backbone.tokenize(texts):
        with torch.inference_mode():
            out = reader(input_ids=torch.tensor([row]), output_hidden_states=True)
        states = [*out.hidden_states[:2], out.last_hidden_state]  # of two layers: bottom, middle
        expected.append(torch.cat([F.normalize(s[0].mean(0), dim=-1) for s in states]))
    found = torch.cat([backbone.features(texts), backbone.embed(texts)], dim=-1)
    torch.testing.assert_close(found, torch.stack(expected), **exact)
