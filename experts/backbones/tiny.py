"""Backbones `tiny-random`, `tiny-causal`, `tiny-seq2seq`: two layers of random BERT, Llama and T5.

Fakes that are products: selectable like any other, so tests and first tries need no weights. What
they say means nothing. Their weights are the same everywhere (fixed seed); a token is a character.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from experts.backbones.base import fingerprint
from experts.backbones.causal import CausalLM
from experts.backbones.seq2seq import Seq2Seq
from experts.backbones.text_encoder import Pooling, TextEncoder

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
CHAT = (
    "[CLS]{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tiny_encoder(*, seed: int = 0, dtype: torch.dtype = torch.float32) -> TextEncoder:
    """A 2-layer, 32-wide BERT with random weights."""
    tokenizer = _tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=128,
    )  # fmt: skip
    model, _ = _random(lambda: BertModel(config), seed, dtype)
    return TextEncoder("tiny-random", model, tokenizer, Pooling(), max_tokens=128)


def tiny_causal(*, seed: int = 0, dtype: torch.dtype = torch.float32) -> CausalLM:
    """A 2-layer, 32-wide Llama with random weights and a chat template."""
    tokenizer = _tokenizer(closed=False)
    tokenizer.chat_template = CHAT
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model, digest = _random(lambda: LlamaForCausalLM(config), seed, dtype)
    return CausalLM("tiny-causal", model, tokenizer, digest)


def tiny_seq2seq(*, seed: int = 0, dtype: torch.dtype = torch.float32) -> Seq2Seq:
    """A T5 of 2 and 2 layers, 32 wide, with random weights."""
    tokenizer = _tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        pad_token_id=0, eos_token_id=3,
    )  # fmt: skip
    config.decoder_start_token_id = 0  # type: ignore[attr-defined]
    tokenizer.model_max_length = 256
    model, digest = _random(lambda: T5ForConditionalGeneration(config), seed, dtype)
    return Seq2Seq("tiny-seq2seq", model, tokenizer, digest)


def _random(make: Callable[[], nn.Module], seed: int, dtype: torch.dtype) -> tuple[nn.Module, str]:
    """A model, and its fingerprint before it is rounded to half precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make().to(torch.promote_types(dtype, torch.float32))
        with torch.no_grad():  # the usual 0.02 would make every text look alike
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(5)
    digest = fingerprint(model)
    return model.to(dtype), digest


def _tokenizer(*, closed: bool = True) -> PreTrainedTokenizerFast:
    """One token per character; anything but printable ASCII is unknown.

    Args:
        closed: whether a text ends with a special token; a text to be continued does not.
    """
    characters = [*SPECIAL, *string.printable]
    backend = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, "[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]" if closed else "[CLS] $A",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]",
    )  # fmt: skip
