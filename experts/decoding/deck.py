"""A running batch on one lane: rows come and go, read what they are given, and step together.

One pass of the model for all rows, whatever experts each uses. Knows token ids and memory; neither
texts nor requests, and not how a token is chosen from its logits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experts.backbones.lanes import Lane
from experts.decoding.anatomy import Anatomy
from experts.decoding.pages import ByteBudget, Pages, Slot
from experts.decoding.passes import Bias, Chunks, FlatPass, Keeper, Source, Steps
from experts.kernels import Lengths
from experts.mix import Mix


@dataclass(eq=False)
class Seat:
    """The place of one row in a deck: memory of its own tokens, and of its source if it has one."""

    own: Slot
    source: Slot | None = None


@dataclass(frozen=True)
class Reading:
    """Tokens that a seat reads: the next of its own, or the whole of its source."""

    seat: Seat
    tokens: Sequence[int]


class Deck(ABC):
    """Rows that are decoded together.

    Args:
        lane: whose copy of the model runs. anatomy: of the model. budget: for keys and values.
        bias: relative positions of the row's own tokens, where the model has such.
    """

    def __init__(
        self, lane: Lane, anatomy: Anatomy, dtype: torch.dtype, device: torch.device,
        budget: ByteBudget, bias: Bias | None = None,
    ) -> None:  # fmt: skip
        self.lane, self.anatomy, self.device, self.bias = lane, anatomy, device, bias
        self.own = Pages(anatomy.own, dtype, device, budget)
        self.source = Pages(anatomy.source, dtype, device, budget)
        self._layers: Mapping[int, tuple[bool, int]] = anatomy.layers(lane.model)
        self._seat_of: dict[Slot, Seat] = {}

    @abstractmethod
    def read(self, readings: Sequence[Reading], mix: Mix | None) -> Tensor:
        """Logits (C, V) after the last token that each seat reads.

        Args:
            mix: with a row for each reading, in order.
        """

    @abstractmethod
    def _logits(self, token_N: Tensor, at_N: Tensor, flat: FlatPass, kept_C: Tensor) -> Tensor:
        """Logits (C, V) of a pass over flat tokens at these positions."""

    def __contains__(self, seat: Seat) -> bool:
        return seat.own in self._seat_of

    @property
    def seats(self) -> list[Seat]:
        """The seats in the order of the batch; it changes as rows come and go."""
        return [self._seat_of[slot] for page in self.own.pages for slot in page.slots]

    def seat(self, tokens: int, source: int = 0) -> Seat | None:
        """A seat for a row that grows to so many tokens; None where memory is short for now."""
        own = self.own.place(tokens)
        if own is None:
            return None
        seat = Seat(own)
        if source:
            seat.source = self.source.place(source)
            if seat.source is None:
                self.own.free(own)
                return None
        self._seat_of[own] = seat
        return seat

    def leave(self, seat: Seat, *, wipe: bool = False) -> None:
        """Let a row go. `wipe`: see `Pages.free`."""
        del self._seat_of[seat.own]
        self.own.free(seat.own, wipe=wipe)
        if seat.source is not None:
            self.source.free(seat.source, wipe=wipe)

    def copy(self, seat: Seat, other: Seat) -> None:
        """Have `other`, a seat of this deck, go on from where `seat` is."""
        self.own.copy(seat.own, other.own)
        if seat.source is not None and other.source is not None:
            self.source.copy(seat.source, other.source)

    def step(self, tokens: Mapping[Seat, int], mix: Mix | None) -> Tensor:
        """Logits (B, V) after one more token for each of these seats, in the order of `seats`.

        Args:
            mix: with a row for every seat of the deck. One that gets no token (its prompt is not
                read yet) takes part in the pass, and nothing of it is kept.
        """
        seats = self.seats
        at_N = self._ids([seat.own.length for seat in seats])
        flat = self._pass(Steps(self.own.pages, self.bias), seats, fresh=False)
        kept_B = self._ids([row for row, seat in enumerate(seats) if seat in tokens])
        nobody = (0,) * len(seats)
        kept = lengths_of([int(seat in tokens) for seat in seats])

        def read_at(site: str) -> Lengths | None:
            if site in self.anatomy.source_sites:
                return nobody
            return kept if site in self.anatomy.kept_sites else None

        with self.lane.hooks.mixing(mix, read_at):
            ids_N = self._ids([tokens.get(seat, 0) for seat in seats])
            logit_BV = self._logits(ids_N, at_N, flat, kept_B)
        for seat in tokens:
            seat.own.length += 1
        return logit_BV

    def _pass(self, own: Keeper, seats: Sequence[Seat], *, fresh: bool) -> FlatPass:
        slots = [seat.source for seat in seats if seat.source is not None]
        return FlatPass(self._layers, own, Source(slots, fresh) if slots else None)

    def _ids(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)

    def _chunks(self, readings: Sequence[Reading], counts: Sequence[int]) -> Chunks:
        return Chunks([r.seat.own for r in readings], counts, self.bias)


def lengths_of(counts: Sequence[int]) -> Lengths | None:
    """Tokens of each row; None where they are equally many, which is quicker."""
    return tuple(counts) if len({*counts}) > 1 else None


def unmasked(like: Tensor) -> Tensor:
    """A mask in the form that models take as it is: the pass itself knows what is hidden."""
    return like.new_zeros(1, 1, 1, 1)
