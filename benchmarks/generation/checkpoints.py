"""The two backbones before training: sizes, the tokenizer of bytes, and how examples are written.

A prompt of the causal model is the input and a newline; the seq2seq model reads the input as it
is. Knows no task and no optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

Family = Literal["causal", "seq2seq"]
FAMILIES: tuple[Family, ...] = ("causal", "seq2seq")
CONTEXT = 512
"""Tokens the causal model can hold, and the seq2seq model's tokenizer says it may be given."""
PAD, EOS, UNK, BOS = range(4)
SPECIAL = ("<pad>", "</s>", "<unk>", "<s>")
# The last user message and what follows it; earlier turns and the system text, which routing
# reads, are left out: the prompt is that of the plain text.
CHAT_TEMPLATE = """\
{%- set last = namespace(user=none) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' %}{% set last.user = loop.index0 %}{% endif -%}
{%- endfor -%}
{{- bos_token -}}
{%- for message in messages -%}
{%- if loop.index0 == last.user -%}
{{- message['content'] + '\\n' -}}
{%- elif last.user is not none and loop.index0 > last.user and message['role'] == 'assistant' -%}
{{- message['content'] + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""


@dataclass(frozen=True)
class Size:
    """How large a model is; the defaults are what is trained."""

    width: int = 256
    inner: int = 640
    layers: int = 5
    heads: int = 4


SIZES: dict[Family, Size] = {
    "causal": Size(),
    "seq2seq": Size(width=192, inner=512, layers=4, heads=6),
}


def make_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """One token a byte, so that any text is encoded and comes back as it was.

    The causal model's begins a text with `<s>`, the seq2seq model's ends it with `</s>`.
    """
    pieces = (*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()))
    backend = Tokenizer(
        models.BPE({piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    begins = family == "causal"
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A" if begins else "$A </s>",
        special_tokens=[("<s>", BOS) if begins else ("</s>", EOS)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        bos_token="<s>", model_max_length=CONTEXT, clean_up_tokenization_spaces=False,
        padding_side="left" if begins else "right",
    )  # fmt: skip
    if begins:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(family: Family, size: Size | None = None, *, seed: int = 0) -> PreTrainedModel:
    """An untrained model, the same for the same seed; torch's own generator is left alone."""
    size, vocabulary = size or SIZES[family], len(make_tokenizer(family))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _causal(size, vocabulary) if family == "causal" else _seq2seq(size, vocabulary)


def _causal(size: Size, vocabulary: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=size.width, intermediate_size=size.inner,
        num_hidden_layers=size.layers, num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2, max_position_embeddings=CONTEXT,
        tie_word_embeddings=True, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.generation_config = _generation(bos_token_id=BOS)
    return model


def _seq2seq(size: Size, vocabulary: int) -> T5ForConditionalGeneration:
    config = T5Config(
        vocab_size=vocabulary, d_model=size.width, d_kv=size.width // size.heads,
        d_ff=size.inner, num_layers=size.layers, num_decoder_layers=max(1, size.layers - 1),
        num_heads=size.heads, feed_forward_proj="gated-gelu", dropout_rate=0.0,
        relative_attention_num_buckets=64,  # exact up to 16 tokens away, not 8 as by default
        n_positions=CONTEXT, pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=PAD,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    model.generation_config = _generation(decoder_start_token_id=PAD)
    return model


def _generation(**begin: int) -> GenerationConfig:
    return GenerationConfig(
        do_sample=False, max_new_tokens=64, pad_token_id=PAD, eos_token_id=EOS, **begin
    )


def prompt(family: Family, text: str) -> str:
    """What the model is given for an input."""
    return f"{text}\n" if family == "causal" else text


def save(model: PreTrainedModel, family: Family, folder: Path) -> None:
    """Write a backbone as transformers reads it, tokenizer and generation settings included."""
    model.save_pretrained(folder)
    make_tokenizer(family).save_pretrained(folder)


def encode_batch(
    family: Family, tokenizer: PreTrainedTokenizerFast, examples: Sequence[tuple[str, str]]
) -> dict[str, torch.Tensor]:
    """A training batch, padded on the right; only answers and their end are learnt.

    Returns:
        `input_ids` and `labels`, each (B, T); labels of a seq2seq model have a T of their own,
        and its inputs an `attention_mask`. -100 is not learnt.
    """
    texts = tokenizer([prompt(family, text) for text, _ in examples])["input_ids"]
    plain = tokenizer([answer for _, answer in examples], add_special_tokens=False)["input_ids"]
    answers = [[*ids, EOS] for ids in plain]
    if family == "causal":  # no mask: what is padded on the right is seen by nothing learnt
        labels = [[-100] * len(t) + answer for t, answer in zip(texts, answers, strict=True)]
        inputs = [[*text, *answer] for text, answer in zip(texts, answers, strict=True)]
        return {"input_ids": _padded(inputs, PAD), "labels": _padded(labels, -100)}
    return {
        "input_ids": _padded(texts, PAD),
        "attention_mask": _padded([[1] * len(ids) for ids in texts], 0),
        "labels": _padded(answers, -100),
    }


def _padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])
