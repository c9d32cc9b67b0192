"""Backbone `seq2seq`: an encoder-decoder of transformers (T5, Flan-T5, BART)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM

from experts.backbones.lanes import Lane
from experts.backbones.language_model import LanguageModel
from experts.decoding.anatomy import OWN, SOURCE
from experts.decoding.deck import Deck
from experts.decoding.likelihood import Ranked
from experts.decoding.pages import ByteBudget
from experts.decoding.passes import Attends
from experts.decoding.seq2seq import Seq2SeqDeck, seq2seq_logits, seq2seq_ranked
from experts.errors import BackboneError
from experts.mix import Mix


class Seq2Seq(LanguageModel):
    """See `LanguageModel`; the encoder reads, and what is written has a context of its own."""

    auto = AutoModelForSeq2SeqLM

    def __init__(
        self, id: str, model: nn.Module, tokenizer: object, fingerprint_: str | None = None
    ) -> None:
        encoder: Any = model.get_encoder()  # type: ignore[operator]
        reader = next(name for name, module in model.named_modules() if module is encoder)
        super().__init__(id, model, tokenizer, reader=reader, fingerprint_=fingerprint_)
        start = self.generation.decoder_start_token_id
        if start is None:
            start = getattr(model.config, "decoder_start_token_id", None)
        if start is None:
            raise BackboneError(f"{id!r} does not tell the token its decoder starts with.")
        forced = self.generation.forced_bos_token_id
        self.start = [int(start), *([] if forced is None else [int(forced)])]

    def deck(self, lane: Lane, budget: ByteBudget) -> Deck:
        """See `LanguageModel.deck`."""
        return Seq2SeqDeck(lane, self.anatomy, self.dtype, self.device, budget, self.start)

    def choice_tokens(self, text: str, choice: str) -> tuple[list[int], list[int]]:
        """See `LanguageModel.choice_tokens`; a choice has the end that the model was taught."""
        text_ids, choice_ids = self.tokens([text, choice])
        return text_ids, choice_ids

    def _rank(self, lane: Lane, ranked: Sequence[Ranked], mix: Mix | None) -> list[Tensor]:
        return seq2seq_ranked(lane, self.anatomy, ranked, self.start, mix)

    def _study(self, flat: Attends, first: int) -> Tensor:
        token_N = torch.arange(1, OWN + 1, device=self.device)  # 0 is often padding, of zeros
        token_N[0] += OWN + first
        at_N = torch.arange(OWN, device=self.device)
        state_1SD = torch.zeros(1, SOURCE, self.width, dtype=self.dtype, device=self.device)
        return seq2seq_logits(self.model, token_N, at_N, flat, state_1SD)
