"""A running batch of a causal language model: a row reads its prompt in chunks, then steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experts.decoding.deck import Deck, Reading, unmasked
from experts.decoding.passes import Attends, FlatPass
from experts.mix import Mix


class CausalDeck(Deck):
    """See `Deck`."""

    def read(self, readings: Sequence[Reading], mix: Mix | None) -> Tensor:
        """See `Deck.read`; a prompt may be read in several parts."""
        counts = [len(r.tokens) for r in readings]
        before = [r.seat.own.length for r in readings]
        at = [p for b, n in zip(before, counts, strict=True) for p in range(b, b + n)]
        row_N = self._row_of(counts)
        flat = self._pass(self._chunks(readings, counts), [], fresh=False)

        def rows_of(site: str, _count: int) -> Tensor | None:
            return None if site in self.anatomy.kept_sites else row_N

        last_C = self._ids(counts).cumsum(0) - 1
        ids_N = self._ids([t for r in readings for t in r.tokens])
        with self.lane.hooks.mixing(mix, rows_of):
            logit_CV = self._logits(ids_N, self._ids(at), flat, last_C)
        for reading in readings:
            reading.seat.own.length += len(reading.tokens)
        return logit_CV

    def _logits(self, token_N: Tensor, at_N: Tensor, flat: FlatPass, kept_C: Tensor) -> Tensor:
        return causal_logits(self.lane.model, token_N, at_N, flat, kept_C)


def causal_logits(
    model: torch.nn.Module, token_N: Tensor, at_N: Tensor, flat: Attends, kept_C: Tensor
) -> Tensor:
    """Logits (C, V) of flat tokens at positions; see `FlatPass`."""
    out = model(
        input_ids=token_N.unsqueeze(0), position_ids=at_N.unsqueeze(0),
        attention_mask=unmasked(next(model.parameters())), use_cache=False, logits_to_keep=kept_C,
        flat=flat,
    )  # fmt: skip
    return out.logits[0]
