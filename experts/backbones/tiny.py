"""Backbone `tiny-random`: two layers of random BERT and a byte-like tokenizer.

A fake that is a product: selectable like any other, so tests and first tries need no weights.
Its answers mean nothing, and its weights are the same everywhere (fixed seed).
"""

from __future__ import annotations

import string

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from experts.backbones.text_encoder import Pooling, TextEncoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tiny_encoder(*, seed: int = 0, dtype: torch.dtype = torch.float32) -> TextEncoder:
    """A 2-layer, 32-wide BERT with random weights."""
    tokenizer = _tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=128,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config).to(dtype)  # type: ignore[arg-type]
        with torch.no_grad():  # BERT's initial 0.02 would make every text look alike
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(5)
    return TextEncoder("tiny-random", model, tokenizer, Pooling(), max_tokens=128)


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token per character; anything but printable ASCII is unknown."""
    characters = [*SPECIAL, *string.printable]
    backend = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip
