"""Models that carry tokens on by more than attention are refused, not answered wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, FalconH1Config, Lfm2Config, PretrainedConfig

from experts.backbones import open_backbone
from experts.backbones.tiny import tiny_causal
from experts.errors import BackboneError

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "vocab_size": 128,
}  # fmt: skip
HYBRIDS = {
    "convolutions": lambda: Lfm2Config(
        **SIZES, layer_types=["conv", "full_attention"], conv_L_cache=3, block_multiple_of=8
    ),
    "state space": lambda: FalconH1Config(
        **SIZES, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_n_groups=1,
        mamba_d_state=8, mamba_chunk_size=16,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_hybrid_is_refused(name: str, tmp_path: Path) -> None:
    config: PretrainedConfig = HYBRIDS[name]()
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tiny_causal().tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="more than attention"):
        open_backbone(str(tmp_path))
