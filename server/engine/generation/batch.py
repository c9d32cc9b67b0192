"""The rows that are written now, on all lanes: who sits where, and with which experts.

Keeps each deck's bank of experts, and the mix in force on it, in step with the rows that come and
go. A deck has a bank of its own, so that a pass reads no expert that none of its rows uses; rows go
where their experts are, as far as that keeps the decks even. Chooses no token and knows no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from experts.bank import Banks
from experts.decoding.deck import Deck, Seat
from experts.mix import Mix, RowMix, build_mix
from experts.weights import ExpertWeights
from routers.token import TOKEN_ROUTERS
from routers.types import Selection
from server.engine.generation.hearing import heard, listening
from server.engine.generation.messages import Written
from server.engine.generation.request import Request
from server.engine.generation.sampling import Drawing
from server.engine.generation.text import TextStream
from server.engine.passes import row_mix
from server.engine.recorder import DIGITS, names_of


@dataclass(eq=False)
class Row:
    """One text that is being written.

    Attributes:
        unread: tokens of the prompt that are still to be read. next: the token to step with.
        remember: tokens of the prompt to keep for others, once they are read.
    """

    request: Request
    drawing: Drawing
    text: TextStream
    deck: Deck
    seat: Seat
    unread: list[int] = field(default_factory=list)
    next: int | None = None
    remember: int = 0

    @property
    def selection(self) -> Selection:
        """Who writes it."""
        return self.request.prompt.selection

    @property
    def listens(self) -> bool:
        """Whether to tell who writes each of its tokens."""
        return self.request.prompt.listens


Found = tuple[list[Row], list[Written | None]]
"""Rows, and what each of them writes next."""
FEW = 12
"""Rows that keep to one deck: a step of so few reads the model's weights and does little else, and
two lanes that read them at the same time wait for the memory."""
PULL = 2
"""Rows by which a deck may be ahead of another for each expert of a row that it has already."""


class RunningBatch:
    """Rows on decks, one deck a lane.

    Args:
        passing: sites that see nothing of what is written, and so do not tell who writes it.
    """

    def __init__(self, decks: Sequence[Deck], passing: Set[str] = frozenset()) -> None:
        self.decks, self._passing = list(decks), passing
        self.rows: list[Row] = []
        self._banks = {deck: Banks(deck.anatomy.siblings) for deck in self.decks}
        self._row_of: dict[Seat, Row] = {}
        self._mixes: dict[Deck, Mix | None] = {}

    @property
    def refs(self) -> list[str]:
        """The experts in use, by reference."""
        return list(dict.fromkeys(ref for bank in self._banks.values() for ref in bank.ids))

    @property
    def bank_bytes(self) -> int:
        """Bytes of the experts in use, side by side on each deck."""
        return sum(bank.nbytes for bank in self._banks.values())

    def may_join(self, experts: Sequence[ExpertWeights]) -> bool:
        """Whether there is a deck where no row writes by former experts of the same names."""
        return any(banks.may_join(experts) for banks in self._banks.values())

    def seats(
        self, tokens: int, source: int, count: int, experts: Sequence[ExpertWeights] = ()
    ) -> tuple[Deck, list[Seat]] | None:
        """Seats for `count` rows on one deck; None where none has room for now.

        Args:
            experts: that they use; see `may_join`.
        """

        def order(deck: Deck) -> tuple[bool, int]:
            rows, there = len(deck.seats), self._banks[deck].ids
            if rows < FEW:
                return False, -rows
            return True, rows - PULL * sum(expert.id in there for expert in experts)

        able = [deck for deck in self.decks if self._banks[deck].may_join(experts)]
        for deck in sorted(able, key=order):
            taken: list[Seat] = []
            while len(taken) < count and (seat := deck.seat(tokens, source)):
                taken.append(seat)
            if len(taken) == count:
                return deck, taken
            for seat in reversed(taken):
                deck.leave(seat)
        return None

    def join(self, rows: Sequence[Row], experts: Sequence[ExpertWeights]) -> None:
        """Rows come in, with the experts that all of them use."""
        for row in rows:
            self.rows.append(row)
            self._row_of[row.seat] = row
            self._banks[row.deck].join(experts)
            self._mixes.pop(row.deck, None)

    def leave(self, row: Row, *, wipe: bool = False) -> None:
        """A row goes; see `Deck.leave`."""
        self.rows.remove(row)
        del self._row_of[row.seat]
        row.deck.leave(row.seat, wipe=wipe)
        self._banks[row.deck].leave(row.selection.refs)
        self._mixes.pop(row.deck, None)

    def on(self, deck: Deck) -> list[Row]:
        """A deck's rows, in the order of its batch."""
        return [self._row_of[seat] for seat in deck.seats]

    def plan(self, deck: Deck, most: int, *, whole: bool) -> list[tuple[Row, list[int]]]:
        """What a deck's rows read next, and what of it is then read: `most` tokens together.

        Args:
            whole: prompts are not read in parts, so that the last one may go beyond `most`.
        """
        plan: list[tuple[Row, list[int]]] = []
        for row in self.on(deck):
            if row.unread and most > 0:
                count = len(row.unread) if whole else min(most, len(row.unread))
                part, row.unread = row.unread[:count], row.unread[count:]
                plan.append((row, part))
                most -= count
        return plan

    def spread(self, row: Row) -> list[Row]:
        """All rows of a prompt that one of them has read."""
        others = [r for r in self.on(row.deck) if r.request is row.request and r is not row]
        for other in others:
            row.deck.copy(row.seat, other.seat)
        return [row, *others]

    def mix_of(self, deck: Deck) -> Mix | None:
        """The mix for a step of all rows of a deck."""
        if deck not in self._mixes:
            self._mixes[deck] = self.mix(deck, self.on(deck))
        return self._mixes[deck]

    def mix(self, deck: Deck, rows: Sequence[Row]) -> Mix | None:
        """The mix of some rows of a deck; None where all take the bare backbone.

        Rows may differ in their token router: each router's rows make a mix of their own, in which
        the others have no part.
        """
        selections = [row.selection for row in rows]
        if not any(s.experts for s in selections):
            return None
        stacks = self._banks[deck].stacks()
        routers = dict.fromkeys(s.token_router for s in selections if s.token_router)
        first = next(iter(routers), None)
        groups = tuple(
            group
            for router in routers or (None,)
            for group in build_mix(
                [row_mix(s) if (s.token_router or first) == router else RowMix()
                 for s in selections],
                stacks, TOKEN_ROUTERS[router] if router else None,
            ).groups
        )  # fmt: skip
        mix = Mix(groups, len(selections))
        if any(row.listens for row in rows):
            return listening(mix, [self._heard_at(row) for row in rows])
        return mix

    def _heard_at(self, row: Row) -> frozenset[str]:
        """The sites at which it is told who weighs how much in what a row writes."""
        if not row.listens:
            return frozenset()
        return row.request.sites - self._passing


def signed(found: Sequence[Found], mix: Mix | None, on: Sequence[Row]) -> Sequence[Found]:
    """What rows write, with the experts that wrote it for those that asked to be told.

    Args:
        mix: of the pass, for the rows `on` in order. Others write what the first beside them read.
    """
    if mix is None or not any(row.listens for row in on):
        return found
    by = dict(zip(on, heard(mix), strict=True))
    return [
        (rows, [token and _by(row, token, by.get(row, by[rows[0]]))
                for row, token in zip(rows, tokens, strict=True)])
        for rows, tokens in found
    ]  # fmt: skip


def _by(row: Row, token: Written, weights: Mapping[str, float]) -> Written:
    """A token of a row, and by which of its experts it was written, as its trace calls them."""
    if not row.listens:
        return token
    refs = row.selection.refs
    names = zip(refs, names_of(refs), strict=True)
    told = {name: round(weights[ref], DIGITS) for ref, name in names if ref in weights}
    return replace(token, experts=told)
