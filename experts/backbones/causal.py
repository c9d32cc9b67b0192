"""Backbone `causal`: a decoder-only language model of transformers (Llama, Qwen, Gemma, GPT-2)."""

from __future__ import annotations

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from experts.backbones.lanes import Lane
from experts.backbones.language_model import LanguageModel
from experts.decoding.anatomy import KEPT, OWN
from experts.decoding.causal import CausalDeck, causal_logits
from experts.decoding.deck import Deck
from experts.decoding.pages import ByteBudget
from experts.decoding.passes import Attends


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

    def _study(self, flat: Attends) -> object:
        token_N = torch.zeros(OWN, dtype=torch.long, device=self.device)
        at_N = torch.arange(OWN, device=self.device)
        kept_C = torch.tensor([OWN - 1] * KEPT, device=self.device)
        return causal_logits(self.model, token_N, at_N, flat, kept_C)
