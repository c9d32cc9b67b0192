"""Adapters that PEFT itself makes, in the shapes people have: material for tests.

`SERVED` must load and act as in PEFT, `REFUSED` must say why not. What `tests/experts/kinds` tries
one by one (patterns, targets, refusals of single fields) is not repeated here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file, save_file

from experts.backbones.tiny import tiny_encoder

Config = Callable[[], peft.PeftConfig]
QUERY: Mapping[str, object] = {"target_modules": ["query"]}
SINGLE, DOUBLE = torch.float32, torch.float64
TAKES = ("pissa", "olora")
"""How an adapter begins that takes weights from the backbone; PEFT does that in float32 only."""
FEED_FORWARD = ["intermediate.dense", "output.dense"]


def lora(**fields: object) -> Config:
    """A LoRA config, anew each time: PEFT writes into the one it is given."""
    return lambda: peft.LoraConfig(**{**QUERY, "lora_alpha": 8, **fields})


SERVED: dict[str, Config] = {
    **{f"rank {r}": lora(r=r, target_modules=["query", "value"]) for r in range(1, 17)},
    "rank-stabilised, every linear layer": lora(
        r=3, use_rslora=True, target_modules="all-linear"
    ),
    "attention only": lora(r=5, target_modules=["query", "key", "value", "attention.output.dense"]),
    "feed-forward only": lora(r=6, target_modules=FEED_FORWARD),
    "one module by its full name": lora(target_modules=["encoder.layer.1.attention.self.value"]),
    "the last layer": lora(target_modules=FEED_FORWARD, layers_to_transform=[1]),
    "by a regular expression": lora(target_modules=r"encoder\.layer\.\d+\..*\.(query|key)"),
    "ranks and alphas by pattern, rank-stabilised": lora(
        r=4, use_rslora=True, target_modules=["query", "key", *FEED_FORWARD],
        rank_pattern={"layer.0.attention.self.query": 9, "key": 1},
        alpha_pattern={"key": 32, r"layer\.1\..*\.query": 0.5},
    ),
    "alpha of a half": lora(r=2, lora_alpha=0.5),
    "a negative alpha": lora(r=2, lora_alpha=-4),
    "orthogonal start": lora(r=4, init_lora_weights="orthogonal"),
    "start as PEFT's tests have it": lora(r=4, init_lora_weights=False),
    "dropout": lora(r=4, lora_dropout=0.9),
    "with a task type": lora(task_type="FEATURE_EXTRACTION"),
}  # fmt: skip

REFUSED: dict[str, tuple[Config, str]] = {
    "DoRA of every layer": (lora(use_dora=True, target_modules="all-linear"), "use_dora"),
    "DoRA, rank-stabilised": (lora(use_dora=True, use_rslora=True), "use_dora"),
    "LoRA's own bias": (lora(lora_bias=True, target_modules=FEED_FORWARD), "lora_bias"),
    "biases of the adapted layers": (lora(bias="lora_only", target_modules="all-linear"), "bias"),
    "all biases": (lora(bias="all", use_rslora=True), "bias"),
    "a trained norm": (lora(modules_to_save=["LayerNorm"]), "modules_to_save"),
    "trained words": (lora(trainable_token_indices={"word_embeddings": [5]}),
                      "trainable_token_indices"),
    "PiSSA": (lora(init_lora_weights="pissa"), "pissa.*backbone's own weights"),
    "PiSSA, fast": (lora(init_lora_weights="pissa_niter_4"), "backbone's own weights"),
    "OLoRA": (lora(init_lora_weights="olora"), "olora.*backbone's own weights"),
    "an embedding": (lora(target_modules=["word_embeddings"]), "no such site|embedding"),
    "an embedding among others": (lora(target_modules=["query", "position_embeddings"]),
                                  "no such site|embedding"),
    "LoHa": (lambda: peft.LoHaConfig(r=4, **QUERY), "LOHA"),
    "LoKr": (lambda: peft.LoKrConfig(r=4, **QUERY), "LOKR"),
    "AdaLoRA": (lambda: peft.AdaLoraConfig(r=4, total_step=10, **QUERY), "ADALORA"),
    "VeRA": (lambda: peft.VeraConfig(r=4, **QUERY), "VERA"),
    "IA3": (lambda: peft.IA3Config(target_modules=["key", "output.dense"],
                                   feedforward_modules=["output.dense"]), "IA3"),
    "OFT": (lambda: peft.OFTConfig(oft_block_size=8, **QUERY), "OFT"),
    "BOFT": (lambda: peft.BOFTConfig(boft_block_size=8, **QUERY), "BOFT"),
    "HRA": (lambda: peft.HRAConfig(r=4, **QUERY), "HRA"),
    "VB-LoRA": (lambda: peft.VBLoRAConfig(r=4, num_vectors=16, vector_length=8, topk=2, **QUERY),
                "VBLORA"),
    "RandLoRA": (lambda: peft.RandLoraConfig(r=4, **QUERY), "RANDLORA"),
    "FourierFT": (lambda: peft.FourierFTConfig(n_frequency=50, **QUERY), "FOURIERFT"),
    "MiSS": (lambda: peft.MissConfig(r=4, **QUERY), "MISS"),
    "norms": (lambda: peft.LNTuningConfig(target_modules=["LayerNorm"]), "LN_TUNING"),
    "a prompt": (lambda: peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION",
                                                 num_virtual_tokens=3), "PROMPT_TUNING"),
    "a prefix": (lambda: peft.PrefixTuningConfig(task_type="FEATURE_EXTRACTION",
                                                 num_virtual_tokens=3), "PREFIX_TUNING"),
}  # fmt: skip


def make(folder: Path, config: Config, *, seed: int = 0) -> peft.PeftModel:
    """Have PEFT make an adapter, draw its tensors and save it; the model that it acts in."""
    made = config()
    takes = str(getattr(made, "init_lora_weights", "")).startswith(TAKES)
    model = peft.get_peft_model(tiny_encoder(dtype=SINGLE if takes else DOUBLE).model, made)
    draw(model, seed)
    model.save_pretrained(folder)
    return model


def make_converted(folder: Path, start: str, *, seed: int = 0) -> peft.PeftModel:
    """One that began by taking weights from the backbone, saved as an ordinary difference."""
    config = lora(r=4, init_lora_weights=start, target_modules=["query", *FEED_FORWARD])
    model = peft.get_peft_model(tiny_encoder(dtype=SINGLE).model, config())
    begun = folder.with_name(f"{folder.name}-begun")
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(begun)
    model.peft_config["default"].init_lora_weights = start
    draw(model, seed, scale=0.05, add=True)
    model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(begun))
    return model


def draw(model: peft.PeftModel, seed: int, scale: float = 0.3, *, add: bool = False) -> None:
    """As training would: every trained tensor another value, large enough to be seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(drawn * scale + (parameter if add else 0))


def store_as(folder: Path, dtype: torch.dtype) -> None:
    """Write an adapter's tensors in another type, as people share them."""
    path = folder / "adapter_model.safetensors"
    save_file({name: t.to(dtype) for name, t in load_file(path).items()}, path)


def change_config(folder: Path, **fields: object) -> None:
    """Say something else in an adapter's config."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
