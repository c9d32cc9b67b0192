"""Backbones in 8 and 4 bits: adapters write what they write in PEFT over the same weights."""

from __future__ import annotations

import pytest
import torch
from transformers import BitsAndBytesConfig

from experts.backbones import open_backbone
from experts.errors import BackboneError
from tests.architectures import Checkpoint, served, write_checkpoint
from tests.language_models import ask, finish, prompts, single

WHO = (None, "a", "b", "a")
CONFIGS = {
    "8bit": {"load_in_8bit": True},
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
}


@pytest.fixture(scope="module", params=["llama", "t5"])
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    root = tmp_path_factory.mktemp(request.param)
    return write_checkpoint(root, request.param, {"a": 4, "b": 2})


@pytest.mark.parametrize("bits", CONFIGS)
def test_adapters_write_what_they_write_in_peft(checkpoint, bits, tmp_path):
    pytest.importorskip("bitsandbytes")
    rows = list(zip(prompts(3, 5, 17, 9, 30), WHO, strict=True))
    with served(checkpoint, tmp_path / "library", "float32", bits) as loop:
        loop.chunk_tokens = 100
        asked = []
        for prompt, who in rows:
            asked.append(ask(loop, prompt, single(who), max_tokens=20, logprobs=0))
            if bits == "8bit":  # alone: its columns apart are those of the whole batch
                finish(loop)
        finish(loop)
    for told, (prompt, who) in zip(asked, rows, strict=True):
        quantised = BitsAndBytesConfig(**CONFIGS[bits])
        model = checkpoint.in_peft(who, torch.float32, quantization_config=quantised)
        tokens, logit_TV = checkpoint.generated(model, prompt, 20)
        assert told.tokens() == tokens
        expected = logit_TV.log_softmax(-1)[range(len(tokens)), tokens].tolist()
        found = [t.logprob for piece in told.pieces_of() for t in piece.tokens]
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("bits", CONFIGS)
def test_lanes_share_quantised_weights_and_read_alike(checkpoint, bits):
    pytest.importorskip("bitsandbytes")
    backbone = open_backbone(str(checkpoint.folder), quantization=bits)
    backbone.widen(2)
    layers = [lane.model.get_submodule(next(iter(backbone.sites))) for lane in backbone.lanes.all]
    first, second = (vars(m.state if bits == "8bit" else m.quant_state) for m in layers)
    kept = {"CB", "SCB"} if bits == "8bit" else {"absmax", "code"}
    assert all(first[name] is not None and first[name] is second[name] for name in kept)
    with torch.inference_mode():
        one, other = (backbone.run(prompts(1, 9, 4), lane=lane) for lane in backbone.lanes.all)
    assert torch.equal(one, other)


def test_without_bitsandbytes_the_error_names_what_to_install(checkpoint, monkeypatch):
    monkeypatch.setattr("experts.backbones.checkpoints.find_spec", lambda _: None)
    with pytest.raises(BackboneError, match=r"needs bitsandbytes: .*sailplane\[quantization\]"):
        open_backbone(str(checkpoint.folder), quantization="8bit")
