"""Backbone `causal`: a decoder-only language model of transformers (Llama, Qwen, Gemma, GPT-2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from experts.backbones.lanes import Lane
from experts.backbones.language_model import LanguageModel
from experts.decoding.anatomy import KEPT, OWN
from experts.decoding.causal import CausalDeck, causal_logits, causal_ranked
from experts.decoding.deck import Deck
from experts.decoding.likelihood import Ranked
from experts.decoding.pages import ByteBudget
from experts.decoding.passes import Attends
from experts.mix import Mix


class CausalLM(LanguageModel):
    """See `LanguageModel`; a row's prompt and what it writes share its context."""

    auto = AutoModelForCausalLM

    def __init__(
        self, id: str, model: nn.Module, tokenizer: object, fingerprint_: str | None = None
    ) -> None:
        reader: str = model.base_model_prefix  # type: ignore[assignment]
        super().__init__(id, model, tokenizer, reader=reader, fingerprint_=fingerprint_)

    def deck(self, lane: Lane, budget: ByteBudget) -> Deck:
        """See `LanguageModel.deck`."""
        return CausalDeck(lane, self.anatomy, self.dtype, self.device, budget)

    def choice_tokens(self, text: str, choice: str) -> tuple[list[int], list[int]]:
        """See `LanguageModel.choice_tokens`; a choice stands on a line of its own."""
        text = text if text[-1:].isspace() else f"{text}\n"
        tokenizer: Any = self.tokenizer
        ids = tokenizer(choice, add_special_tokens=False, verbose=False)["input_ids"]
        return self.tokens([text])[0], ids

    def _rank(self, lane: Lane, ranked: Sequence[Ranked], mix: Mix | None) -> list[Tensor]:
        return causal_ranked(lane, self.anatomy, ranked, mix)

    def _study(self, flat: Attends, first: int) -> Tensor:
        token_N = torch.arange(1, OWN + 1, device=self.device)  # 0 is often padding, of zeros
        token_N[0] += OWN + first
        at_N = torch.arange(OWN, device=self.device)
        kept_C = torch.tensor([OWN - 1] * KEPT, device=self.device)
        return causal_logits(self.model, token_N, at_N, flat, kept_C)
