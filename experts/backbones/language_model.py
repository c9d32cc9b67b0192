"""What backbones that write have in common: loading, sites, contexts, and running batches.

Text goes in and token logits come out, one running batch a lane. They read texts too, by the mean
of their last states, so that they embed, and route. Nothing here chooses a token.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, GenerationConfig
from transformers.pytorch_utils import Conv1D

from experts.backbones.base import (
    MAX_PADDED_TOKENS,
    Backbone,
    fingerprint,
    masked_mean,
    no_bars,
)
from experts.backbones.checkpoints import DTYPES, checkpoint_fingerprint, only_pickled, quantized
from experts.backbones.lanes import Lane, at_least
from experts.backbones.packed import pack_linears
from experts.decoding import latest
from experts.decoding.anatomy import Anatomy, study
from experts.decoding.deck import Deck
from experts.decoding.likelihood import Ranked
from experts.decoding.pages import ByteBudget
from experts.decoding.passes import NAME, Attends
from experts.errors import BackboneError, ChatError
from experts.kinds import Site
from experts.mix import Mix

# What writes into the residual stream, as Llama, GPT-2, T5 and BART name it.
RESIDUAL = ("self_attn.o_proj", "mlp.down_proj", "attn.c_proj", "mlp.c_proj", "SelfAttention.o",
            "EncDecAttention.o", "DenseReluDense.wo", "attn.out_proj", "fc2")  # fmt: skip
FEATURE_TOKENS = 512
"""Tokens of a prompt that routing looks at: the task shows early, and a pass costs time."""
NO_LIMIT = 2048
"""Context of a model that tells no limit, such as T5 without `n_positions`."""
MAX_LOGITS = 2**26
"""Logits of one pass: a quarter of a gigabyte."""


class LanguageModel(Backbone):
    """A frozen language model of transformers.

    Attributes:
        context: tokens a row may have, what it reads and what it writes together; of a model with
            a source, of either alone. eos: tokens that end a text.
    """

    auto: ClassVar[Any]
    """The class of transformers that loads it."""
    start: Sequence[int] = ()
    """What comes before all that is written, where that has a context of its own."""

    def __init__(
        self, id: str, model: nn.Module, tokenizer: object, *, reader: str,
        fingerprint_: str | None = None,
    ) -> None:  # fmt: skip
        config: Any = model.config
        self._reader = reader
        self.context = context_of(config, tokenizer)
        model.set_attn_implementation(NAME)  # type: ignore[operator]
        super().__init__(
            id, model, tokenizer, sites=linear_sites(model), max_tokens=self.context,
            fingerprint=fingerprint_ or fingerprint(model), reader=reader,
        )  # fmt: skip
        self.feature_tokens = min(FEATURE_TOKENS, self.context)
        self.vocabulary: int = config.vocab_size
        self.generation: GenerationConfig = model.generation_config  # type: ignore[assignment]
        self.eos = ids_of(self.generation.eos_token_id)
        self.anatomy: Anatomy = study(model, self.hooks, self._study)
        self.sites = {n: s for n, s in self.sites.items() if n not in self.anatomy.odd_sites}
        self._require_one_dtype()
        if getattr(model, "is_quantized", False):
            # Quantised layers settle in their first pass: before lanes share them, encoder too.
            with torch.no_grad():
                self.run([[0]])

    @classmethod
    def load(
        cls, source: str, id: str | None = None, device: str = "cpu", dtype: str = "float32",
        quantization: str | None = None,
    ) -> Self:  # fmt: skip
        """Load from a local folder or a hub id; safetensors only, no remote code.

        Args:
            dtype: of the weights in memory. quantization: "8bit" or "4bit", by bitsandbytes. In
                8 bits, a text depends a little on whoever else is in the batch: columns that are
                large in any row are multiplied apart, for all (LLM.int8()).

        Raises:
            BackboneError: it is not there, is damaged, has no safetensors weights, or is to be
                quantised and bitsandbytes is not there.
        """
        try:
            with no_bars():
                model = cls.auto.from_pretrained(
                    source, use_safetensors=True, dtype=DTYPES[dtype], attn_implementation=NAME,
                    device_map=None if device == "cpu" else device,
                    quantization_config=quantized(quantization, DTYPES[dtype]),
                )  # fmt: skip
            tokenizer = AutoTokenizer.from_pretrained(source)
            digest = checkpoint_fingerprint(source)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            why = only_pickled(source) or error
            raise BackboneError(f"Cannot load backbone {source!r}: {why}") from error
        if quantization is None:
            pack_linears(model)
        name = id or source.rstrip("/").rsplit("/", 1)[-1]
        return cls(name, model, tokenizer, fingerprint_=digest)  # pyright: ignore[reportCallIssue]

    @abstractmethod
    def deck(self, lane: Lane, budget: ByteBudget) -> Deck:
        """A running batch on a lane of this backbone."""

    @abstractmethod
    def choice_tokens(self, text: str, choice: str) -> tuple[list[int], list[int]]:
        """A text as the model reads it, and a choice as it would write it after the text."""

    @abstractmethod
    def _rank(self, lane: Lane, ranked: Sequence[Ranked], mix: Mix | None) -> list[Tensor]:
        """One pass of `rank`."""

    @abstractmethod
    def _study(self, flat: Attends, first: int) -> Tensor:
        """The pass that `study` watches."""

    def widen(self, count: int) -> None:
        """See `Backbone.widen`."""
        super().widen(count)
        if self.device.type == "cpu":
            latest.prepare(self.dtype)

    def decks(self, budget: ByteBudget) -> list[Deck]:
        """A running batch for every lane, all within one budget."""
        return [self.deck(lane, budget) for lane in self.lanes.all]

    def rank(self, ranked: Sequence[Ranked], mix: Mix | None = None) -> list[Tensor]:
        """Mean logarithmic probability a token of each text's choices: (C,) each, in float64.

        Args:
            mix: with a row for each text, in order.
        """
        # The logits of all wanted tokens are there at one time.
        most = max(1, MAX_LOGITS // self.vocabulary)
        sizes = [max(one.kept * MAX_PADDED_TOKENS // most, one.tree(len(one.text)).tokens)
                 for one in ranked]  # fmt: skip
        chunks = at_least(in_order(sizes, MAX_PADDED_TOKENS), self.lanes.count)

        def work(lane: Lane, chunk: Sequence[int]) -> list[Tensor]:
            part = mix and mix.rows(torch.tensor(chunk, device=self.device))
            return self._rank(lane, [ranked[i] for i in chunk], part)

        found = self.lanes.map(work, chunks)
        by_row = {i: row for chunk, rows in zip(chunks, found, strict=True)
                  for i, row in zip(chunk, rows, strict=True)}  # fmt: skip
        return [by_row[i] for i in range(len(ranked))]

    def rank_at_once(self, ranked: Sequence[Ranked], mix: Mix | None = None) -> list[Tensor]:
        """`rank` in one pass of the calling thread, also for gradients."""
        return self._rank(self.lanes.first, ranked, mix)

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text, special ones included."""
        tokenizer: Any = self.tokenizer
        return tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)

    @cached_property
    def source_sites(self) -> frozenset[str]:
        """Sites that see what is read, and not what is written.

        An encoder's, and those by which what is written looks at it.
        """
        inside = {s for s in self.sites if s.startswith(f"{self._reader}.")}
        return self.anatomy.source_sites | inside if self.anatomy.source else frozenset()

    @property
    def chats(self) -> bool:
        """Whether the tokenizer has a chat template."""
        return bool(getattr(self.tokenizer, "chat_template", None))

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation, up to where the answer begins.

        A developer speaks as the system does where the template knows no developers.

        Raises:
            ChatError: the tokenizer has no chat template, or the template refuses these turns.
        """
        if not self.chats:
            raise ChatError(
                f"{self.id!r} has no chat template; send the prompt to /v1/completions."
            )
        tokenizer: Any = self.tokenizer
        turns = [dict(m) for m in messages]
        if "developer" not in str(tokenizer.chat_template):
            turns = [{**t, "role": "system"} if t["role"] == "developer" else t for t in turns]
        try:
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of its author
            raise ChatError(f"The chat template refuses the messages: {error}") from error
        # The template writes the special tokens itself.
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def _require_one_dtype(self) -> None:
        """Refuse a model that computes in two types: T5 keeps layers in float32 for float16."""
        weights: dict[str, Any] = {n: self.model.get_submodule(n).weight for n in self.sites}
        odd = [f"{name} ({w.dtype})" for name, w in weights.items()
               if w.is_floating_point() and w.dtype != self.dtype]  # fmt: skip
        if odd:
            raise BackboneError(
                f"Cannot serve {self.id!r} in {self.dtype}: transformers keeps {len(odd)} of its "
                f"layers in another type, {odd[0]} for one. Choose bfloat16 or float32."
            )

    def _pool(self, states_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return F.normalize(masked_mean(states_BTD, mask_BT), dim=-1)


def in_order(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Rows in passes of at most `most` together; a row that is larger has a pass of its own."""
    passes: list[list[int]] = []
    left = 0
    for i, size in enumerate(sizes):
        if size > left:
            passes.append([])
            left = most
        passes[-1].append(i)
        left -= size
    return passes


def linear_sites(model: nn.Module) -> dict[str, Site]:
    """Every linear layer as a site, GPT-2's transposed ones too."""
    found: dict[str, Site] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            widths = module.in_features, module.out_features
        elif isinstance(module, Conv1D):
            widths = module.nx, module.nf
        else:
            continue
        found[name] = Site(name, *widths, residual=name.endswith(RESIDUAL))
    return found


def context_of(config: Any, tokenizer: object) -> int:
    """Tokens that a model takes, by its config or else by its tokenizer."""
    said = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    told = next((n for n in said if isinstance(n, int) and n > 0), None)
    length = getattr(tokenizer, "model_max_length", None)
    if told is None and isinstance(length, int) and length < 10**6:
        told = length
    return told or NO_LIMIT


def ids_of(said: int | Sequence[int] | None) -> frozenset[int]:
    """Token ids that a config gives as one, several, or none."""
    if said is None:
        return frozenset()
    return frozenset([said] if isinstance(said, int) else said)
