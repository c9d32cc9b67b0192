"""A running batch of an encoder-decoder: a row's source is read once, then its own tokens step.

Models of T5's and BART's form: relative position biases and learnt positions are told from the
row's own age, for rows of one pass are of different ages.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from experts.backbones.lanes import Lane
from experts.decoding.anatomy import Anatomy
from experts.decoding.branches import Branches, Sources
from experts.decoding.deck import Deck, Reading, lengths_of, unmasked
from experts.decoding.likelihood import Ranked, kept_of, mean_logprobs
from experts.decoding.pages import ByteBudget
from experts.decoding.passes import Attends, Bias, FlatPass
from experts.kernels import Lengths
from experts.mix import Mix


class Seq2SeqDeck(Deck):
    """See `Deck`.

    Args:
        start: the decoder's first tokens.
    """

    def __init__(
        self, lane: Lane, anatomy: Anatomy, dtype: torch.dtype, device: torch.device,
        budget: ByteBudget, start: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__(lane, anatomy, dtype, device, budget, relative_bias(lane.model))
        self.start = list(start)

    def read(self, readings: Sequence[Reading], mix: Mix | None) -> Tensor:
        """See `Deck.read`; a source is read whole, and the decoder's first tokens after it."""
        counts = [len(r.tokens) for r in readings]
        state_1SD = encode_sources(self.lane, [r.tokens for r in readings], mix)
        for reading, count in zip(readings, counts, strict=True):
            assert reading.seat.source is not None
            reading.seat.source.length = count
        logit_BV = self._begin(readings, self.start[0], mix, state_1SD)
        for token in self.start[1:]:
            logit_BV = self._begin(readings, token, mix)
        return logit_BV

    def _begin(
        self, readings: Sequence[Reading], token: int, mix: Mix | None,
        state_1SD: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits (B, V) after one more token of all that begin: `Source` knows one a row.

        Args:
            state_1SD: of the sources, in the pass that reads them.
        """
        count, fresh = len(readings), state_1SD is not None
        own = self._chunks(readings, [1] * count)
        flat = self._pass(own, [r.seat for r in readings], fresh=fresh)
        source = lengths_of([len(r.tokens) for r in readings]) if fresh else (0,) * count

        def read_at(site: str) -> Lengths | None:
            return source if site in self.anatomy.source_sites else None

        at_N = self._ids([r.seat.own.length for r in readings])
        with self.lane.hooks.mixing(mix, read_at):
            logit_BV = seq2seq_logits(
                self.lane.model, self._ids([token] * count), at_N, flat,
                self._read_already if state_1SD is None else state_1SD,
            )  # fmt: skip
        for reading in readings:
            reading.seat.own.length += 1
        return logit_BV

    def _logits(self, token_N: Tensor, at_N: Tensor, flat: FlatPass, kept_C: Tensor) -> Tensor:
        return seq2seq_logits(self.lane.model, token_N, at_N, flat, self._read_already)[kept_C]

    @property
    def _read_already(self) -> Tensor:
        """What stands for the sources once they are read.

        The layers project a source in every pass; of this one token nothing is kept.
        """
        width: int = self.lane.model.config.hidden_size  # type: ignore[union-attr,assignment]
        return next(self.lane.model.parameters()).new_zeros(1, 1, width)


def encode_sources(lane: Lane, sources: Sequence[Sequence[int]], mix: Mix | None) -> Tensor:
    """States (1, S, D) of all sources' own tokens, one source after the other."""
    device = next(lane.model.parameters()).device
    counts = [len(source) for source in sources]
    ids_BT = torch.zeros(len(sources), max(counts), dtype=torch.long)
    for row, source in enumerate(sources):
        ids_BT[row, : counts[row]] = torch.tensor(source)
    mask_BT = (torch.arange(max(counts)) < torch.tensor(counts).unsqueeze(1)).to(device)
    with lane.hooks.mixing(mix):
        out = lane.reader(input_ids=ids_BT.to(device), attention_mask=mask_BT.long())
    return out.last_hidden_state[mask_BT].unsqueeze(0)


def seq2seq_ranked(
    lane: Lane, anatomy: Anatomy, ranked: Sequence[Ranked], start: Sequence[int], mix: Mix | None
) -> list[Tensor]:
    """See `mean_logprobs`; a text is a source, and its choices are what is written of it.

    Args:
        start: the decoder's first tokens. mix: with a row for each text, in order.
    """
    device = next(lane.model.parameters()).device
    trees = [one.tree(len(start)) for one in ranked]
    counts = [(len(one.text), tree.tokens) for one, tree in zip(ranked, trees, strict=True)]

    def ids(numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=device)

    source = lengths_of([read for read, _ in counts])
    written = lengths_of([written for _, written in counts])
    flat = FlatPass(
        anatomy.layers(lane.model), Branches(trees, relative_bias(lane.model)), Sources(counts)
    )
    state_1SD = encode_sources(lane, [one.text for one in ranked], mix)

    def read_at(site: str) -> Lengths | None:
        return source if site in anatomy.source_sites else written

    with lane.hooks.mixing(mix, read_at):
        logit_NV = seq2seq_logits(
            lane.model, ids([t for one in ranked for t in one.ids(start)]),
            ids([p for tree in trees for p in tree.positions]), flat, state_1SD,
        )  # fmt: skip
    kept_C = ids(kept_of(ranked, [tree.stem for tree in trees]))
    return mean_logprobs(ranked, logit_NV[kept_C])


def seq2seq_logits(
    model: nn.Module, token_N: Tensor, at_N: Tensor, flat: Attends, source_1SD: Tensor
) -> Tensor:
    """Logits (N, V) of flat decoder tokens at positions.

    Args:
        source_1SD: encoder states that the pass brings; whatever, once they have been read.
    """
    mask = unmasked(source_1SD)
    with _positions(model, at_N):
        out = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=source_1SD),  # pyright: ignore[reportArgumentType]
            attention_mask=mask, decoder_input_ids=token_N.unsqueeze(0),
            decoder_attention_mask=mask, use_cache=False, flat=flat,
        )  # fmt: skip
    return out.logits[0]


@contextmanager
def _positions(model: nn.Module, at_N: Tensor) -> Generator[None]:
    """Tell a decoder with learnt positions where each flat token stands: it would count them."""
    table = next((m for n, m in model.named_modules() if n.endswith("decoder.embed_positions")),
                 None)  # fmt: skip
    if table is None:
        yield
        return

    def place(
        _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs | {"position_ids": at_N}

    handle = table.register_forward_pre_hook(place, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def relative_bias(model: nn.Module) -> Bias | None:
    """The decoder's relative position bias (Raffel et al. 2020, section 2.1), where it has one."""
    decoder: Any = model.get_decoder()  # type: ignore[operator]
    first = next((m for m in decoder.modules() if getattr(m, "has_relative_attention_bias", False)),
                 None)  # fmt: skip
    if first is None:
        return None

    def bias(at_BT: Tensor, keys: int) -> Tensor:
        at_S = torch.arange(keys, device=at_BT.device)
        bucket_BTS = first._relative_position_bucket(
            at_S - at_BT.unsqueeze(-1), bidirectional=False,
            num_buckets=first.relative_attention_num_buckets,
            max_distance=first.relative_attention_max_distance,
        )  # fmt: skip
        return first.relative_attention_bias(bucket_BTS).permute(0, 3, 1, 2)

    return bias
