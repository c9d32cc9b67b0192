"""Choices are scored in one pass as if each had been scored by a pass of its own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from experts.decoding.likelihood import Ranked
from experts.mix import build_mix
from experts.stacks import stack_experts
from routers.token import TOKEN_ROUTERS
from server.engine.passes import row_mix
from tests.language_models import Stage, merged, per_token, prompts, single


def alone(stage: Stage, text: Sequence[int], choice: Sequence[int], selection) -> float:
    """Mean log-probability of one choice, by a pass of transformers for it alone."""
    experts = [stage.experts[ref] for ref in selection.refs]
    router = TOKEN_ROUTERS.get(selection.token_router or "")
    mix = build_mix([row_mix(selection)], [stack_experts(experts)], router) if experts else None
    model = stage.backbone.model
    with torch.inference_mode(), stage.backbone.hooks.mixing(mix):
        if stage.family == "causal":
            out = model(input_ids=torch.tensor([[*text, *choice]]), use_cache=False)
            logit_TV = out.logits[0, len(text) - 1 : -1]
        else:
            out = model(
                input_ids=torch.tensor([text]), use_cache=False,
                decoder_input_ids=torch.tensor([[0, *choice[:-1]]]),
            )  # fmt: skip
            logit_TV = out.logits[0]
    logprob_TV = torch.log_softmax(logit_TV, dim=-1)
    return float(logprob_TV[range(len(choice)), list(choice)].mean())


CASES = [
    (single(None), [1, 4, 2]),
    (single("a", 0.7), [3]),
    (merged({"a": 0.4, "c": 0.6}), [1, 1, 5, 2]),
    (per_token(["a", "b", "c"]), [6, 1]),
]


@pytest.mark.parametrize("width", [1, 10_000])
def test_ranked_together_as_alone(stage: Stage, width: int, monkeypatch) -> None:
    monkeypatch.setattr("experts.backbones.language_model.MAX_PADDED_TOKENS", width)
    texts = prompts(3, 4, 9, 1, 14)
    ranked = [
        Ranked(text, prompts(10 + i, *lengths))
        for i, (text, (_, lengths)) in enumerate(zip(texts, CASES, strict=True))
    ]
    rows = [row_mix(selection) for selection, _ in CASES]
    mix = build_mix(rows, [stack_experts(list(stage.experts.values()))], TOKEN_ROUTERS["gate"])
    with torch.inference_mode():
        found = stage.backbone.rank(ranked, mix)
    for one, (selection, _), mean_C in zip(ranked, CASES, found, strict=True):
        expected = [alone(stage, one.text, choice, selection) for choice in one.choices]
        torch.testing.assert_close(mean_C.tolist(), expected, rtol=1e-9, atol=1e-9)
