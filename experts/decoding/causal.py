"""A running batch of a causal language model: a row reads its prompt in chunks, then steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from experts.backbones.lanes import Lane
from experts.decoding.anatomy import Anatomy
from experts.decoding.branches import Branches
from experts.decoding.deck import Deck, Reading, lengths_of, unmasked
from experts.decoding.likelihood import Ranked, kept_of, mean_logprobs
from experts.decoding.passes import Attends, FlatPass
from experts.kernels import Lengths
from experts.mix import Mix


class CausalDeck(Deck):
    """See `Deck`."""

    def read(self, readings: Sequence[Reading], mix: Mix | None) -> Tensor:
        """See `Deck.read`; a prompt may be read in several parts."""
        counts = [len(r.tokens) for r in readings]
        before = [r.seat.own.length for r in readings]
        at = [p for b, n in zip(before, counts, strict=True) for p in range(b, b + n)]
        lengths = lengths_of(counts)
        flat = self._pass(self._chunks(readings, counts), [], fresh=False)

        def read_at(site: str) -> Lengths | None:
            return None if site in self.anatomy.kept_sites else lengths

        last_C = self._ids(counts).cumsum(0) - 1
        ids_N = self._ids([t for r in readings for t in r.tokens])
        with self.lane.hooks.mixing(mix, read_at):
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


def causal_ranked(
    lane: Lane, anatomy: Anatomy, ranked: Sequence[Ranked], mix: Mix | None
) -> list[Tensor]:
    """See `mean_logprobs`; a text is followed by its choices.

    Args:
        mix: with a row for each text, in order.
    """
    device = next(lane.model.parameters()).device
    trees = [one.tree(len(one.text)) for one in ranked]

    def ids(numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device)

    lengths = lengths_of([tree.tokens for tree in trees])
    kept = lengths_of([one.kept for one in ranked])
    flat = FlatPass(anatomy.layers(lane.model), Branches(trees))

    def read_at(site: str) -> Lengths | None:
        return kept if site in anatomy.kept_sites else lengths

    with lane.hooks.mixing(mix, read_at):
        logit_CV = causal_logits(
            lane.model, ids([t for one in ranked for t in one.ids(one.text)]),
            ids([p for tree in trees for p in tree.positions]), flat,
            ids(kept_of(ranked, [tree.stem for tree in trees])),
        )  # fmt: skip
    return mean_logprobs(ranked, logit_CV)
