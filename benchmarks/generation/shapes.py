"""Random generating backbones, LoRA adapters and prompts for measurements of speed.

Everything follows from fixed seeds and is made once, under `benchmarks/.cache/generation-bench`.
What such a backbone writes means nothing, but each adapter changes it. Knows no engine.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from benchmarks.places import CACHE
from experts.atomic import atomic_folder

KEPT = CACHE / "generation-bench"
FORMAT = 1
"""Raise it when the same shape is to give other files."""
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
PAD, BOS, EOS = 0, 1, 2
RANK, ALPHA, STD_OF_B = 8, 16, 0.02
ADAPTERS, PROMPTS, PROMPT_TOKENS = 16, 64, 32
STD_OF_T5_EMBEDDINGS = 0.25  # its logits are scaled down by the root of the width, Llama's are not
LONGEST = 1024


@dataclass(frozen=True)
class Shape:
    """Sizes of a backbone; a T5 has `layers` in its encoder and as many in its decoder."""

    name: str
    family: str  # llama | t5
    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    tied: bool = True


SHAPES = {
    s.name: s
    for s in (
        Shape("34m", "llama", 8, 512, 8, 1376, 16_384),
        Shape("160m", "llama", 12, 768, 12, 3072, 32_000, tied=False),
        Shape("t5", "t5", 6, 512, 8, 1024, 16_384),
    )
}


def checkpoint(shape: Shape, kept: Path = KEPT) -> Path:
    """The folder of the backbone in transformers' format, float32, with a tokenizer of words."""
    folder, recipe = kept / shape.name / "checkpoint", {"format": FORMAT, **asdict(shape)}
    made = folder / "made.json"
    if not (made.is_file() and json.loads(made.read_text("utf-8")) == recipe):
        with atomic_folder(folder) as fresh:
            _backbone(shape).save_pretrained(fresh)
            _tokenizer(shape.vocabulary).save_pretrained(fresh)
            (fresh / made.name).write_text(json.dumps(recipe), "utf-8")
    return folder


def adapters(shape: Shape, count: int = ADAPTERS, kept: Path = KEPT) -> list[Path]:
    """Folders of the first `count` adapters, as PEFT writes them; the first ones never change.

    Rank 8 on every linear layer but the head. No B is zero, so each one changes what is written.
    """
    recipe = {"format": FORMAT, "rank": RANK, "alpha": ALPHA, "std": STD_OF_B, **asdict(shape)}
    parent = kept / shape.name / "adapters"
    folders = [parent / f"{index:03}" for index in range(count)]
    sites = _sites(shape)
    for index, folder in enumerate(folders):
        made = folder / "made.json"
        if not (made.is_file() and json.loads(made.read_text("utf-8")) == recipe):
            with atomic_folder(folder) as fresh:
                _write_adapter(fresh, sites, index, shape.family)
                (fresh / made.name).write_text(json.dumps(recipe), "utf-8")
    return folders


def prompts(
    shape: Shape, count: int = PROMPTS, tokens: int = PROMPT_TOKENS, seed: int = 0
) -> list[list[int]]:
    """Random token ids, none of them special: the first ones are the same for any count."""
    rng = random.Random(seed)
    ordinary = range(len(SPECIAL), shape.vocabulary)
    return [rng.choices(ordinary, k=tokens) for _ in range(count)]


def arrivals(count: int, rate: float, seed: int = 0) -> list[float]:
    """Seconds at which requests come that come independently, `rate` of them a second."""
    rng = random.Random(seed)
    return list(accumulate(rng.expovariate(rate) for _ in range(count)))


def _config(shape: Shape) -> LlamaConfig | T5Config:
    ids = {"pad_token_id": PAD, "eos_token_id": EOS}
    if shape.family == "t5":
        return T5Config(
            vocab_size=shape.vocabulary, d_model=shape.hidden, num_layers=shape.layers,
            num_heads=shape.heads, d_kv=shape.hidden // shape.heads, d_ff=shape.intermediate,
            feed_forward_proj="gated-gelu", decoder_start_token_id=PAD, **ids,
        )  # fmt: skip
    return LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.heads,
        intermediate_size=shape.intermediate, max_position_embeddings=LONGEST,
        tie_word_embeddings=shape.tied, bos_token_id=BOS, **ids,
    )  # fmt: skip


def _empty(shape: Shape) -> PreTrainedModel:
    """The backbone without memory for its weights."""
    kind = T5ForConditionalGeneration if shape.family == "t5" else LlamaForCausalLM
    with torch.device("meta"):
        return kind(_config(shape))


def _backbone(shape: Shape) -> PreTrainedModel:
    """Random weights that keep activations at a size of about 1.

    Layers outweigh embeddings in the residual stream, or else a backbone whose head is tied to its
    embeddings would write its last token again and again.
    """
    model = _empty(shape).to_empty(device="cpu")
    model.init_weights()  # what is not a parameter, such as rotary frequencies
    model.tie_weights()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                nn.init.ones_(weight)  # norms
            else:
                nn.init.normal_(weight, std=_std(name, weight), generator=rng)
    return model


def _std(name: str, weight: Tensor) -> float:
    """One by the root of the input width.

    T5 does not scale its attention scores, so its attention is sharp: what it writes varies.
    """
    return STD_OF_T5_EMBEDDINGS if name == "shared.weight" else weight.shape[1] ** -0.5


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One word a token: `w17` is token 17."""
    words = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), vocabulary))]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=SPECIAL[3]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, bos, eos, unknown = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=pad, bos_token=bos, eos_token=eos, unk_token=unknown,
        model_max_length=LONGEST,
    )  # fmt: skip


def _sites(shape: Shape) -> dict[str, tuple[int, int]]:
    """Output and input width of every linear layer but the head."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in _empty(shape).named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    }


def _write_adapter(
    folder: Path, sites: dict[str, tuple[int, int]], index: int, family: str
) -> None:
    rng = torch.Generator().manual_seed(1_000 + index)
    tensors: dict[str, Tensor] = {}
    for site, (output, width) in sites.items():
        a_RD = torch.randn(RANK, width, generator=rng) * width**-0.5
        b_OR = torch.randn(output, RANK, generator=rng) * STD_OF_B
        tensors[f"base_model.model.{site}.lora_A.weight"] = a_RD
        tensors[f"base_model.model.{site}.lora_B.weight"] = b_OR
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, bias="none",
        target_modules=sorted({site.rpartition(".")[2] for site in sites}),
        task_type="SEQ_2_SEQ_LM" if family == "t5" else "CAUSAL_LM", inference_mode=True,
    ).save_pretrained(folder)  # fmt: skip
