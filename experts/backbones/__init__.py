"""Frozen backbones: one file per family, opened by `open_backbone`.

A backbone is named by a local folder, a hub id, `demo` (the packaged all-MiniLM-L6-v2), or one of
the fakes that need no weights: `tiny-random`, `tiny-causal`, `tiny-seq2seq`. What family a
checkpoint is of, it says itself.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig
from transformers.utils.hub import cached_file

from experts.backbones.base import Backbone
from experts.backbones.causal import CausalLM
from experts.backbones.checkpoints import DTYPES
from experts.backbones.demo import demo_path
from experts.backbones.language_model import LanguageModel
from experts.backbones.seq2seq import Seq2Seq
from experts.backbones.text_encoder import TextEncoder
from experts.backbones.tiny import tiny_causal, tiny_encoder, tiny_seq2seq
from experts.errors import BackboneError

__all__ = ["Backbone", "CausalLM", "LanguageModel", "Seq2Seq", "TextEncoder", "open_backbone"]

TINY_ENCODER = "tiny-random"
TINY_WRITERS = {"tiny-causal": tiny_causal, "tiny-seq2seq": tiny_seq2seq}
SENTENCE_MODEL = "modules.json"
"""What every sentence-transformers model has, of whatever architecture: it embeds, nothing more."""


def open_backbone(
    name: str, device: str = "cpu", dtype: str = "float32", quantization: str | None = None
) -> Backbone:
    """Load the backbone that `name` stands for.

    Args:
        dtype, quantization: of language models; see `LanguageModel.load`.

    Raises:
        BackboneError: it cannot be loaded, or not as asked.
    """
    if name in TINY_WRITERS and quantization is None:
        return TINY_WRITERS[name](dtype=DTYPES[dtype])
    family = None if name in ("demo", TINY_ENCODER, *TINY_WRITERS) else _family(name)
    if family is not None:
        return family.load(name, device=device, dtype=dtype, quantization=quantization)
    if quantization is not None:
        raise BackboneError(f"{name!r} cannot be quantised: only checkpoints that write can.")
    if dtype != "float32":
        raise BackboneError(f"{name!r} reads and does not write: it computes in float32 only.")
    if name == TINY_ENCODER:
        return tiny_encoder()
    if name == "demo":
        return TextEncoder.load(demo_path(), id="all-MiniLM-L6-v2", device=device)
    return TextEncoder.load(name, device=device)


def _family(source: str) -> type[LanguageModel] | None:
    """The family of language models that a checkpoint belongs to; None for an encoder."""
    missing = {"_raise_exceptions_for_missing_entries": False}
    try:
        if cached_file(source, SENTENCE_MODEL, **missing):
            return None
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        absent = "" if Path(source).exists() else "there is no such folder, and as a hub id: "
        raise BackboneError(f"Cannot load backbone {source!r}: {absent}{error}") from error
    if config.is_encoder_decoder:
        return Seq2Seq
    architectures = " ".join(config.architectures or ())
    return CausalLM if "CausalLM" in architectures or "LMHeadModel" in architectures else None
