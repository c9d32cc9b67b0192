"""The rows that are written now, on all lanes: who sits where, and with which experts.

Keeps the banks of experts and the mix in force for each deck in step with the rows that come and
go. Chooses no token and knows no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from experts.bank import Banks
from experts.decoding.deck import Deck, Seat
from experts.mix import Mix, RowMix, build_mix
from experts.weights import ExpertWeights
from routers.token import TOKEN_ROUTERS
from routers.types import Selection
from server.engine.generation.request import Request
from server.engine.generation.sampling import Drawing
from server.engine.generation.text import TextStream
from server.engine.passes import row_mix


@dataclass(eq=False)
class Row:
    """One text that is being written.

    Attributes:
        unread: tokens of the prompt that are still to be read. next: the token to step with.
    """

    request: Request
    drawing: Drawing
    text: TextStream
    deck: Deck
    seat: Seat
    unread: list[int] = field(default_factory=list)
    next: int | None = None

    @property
    def selection(self) -> Selection:
        """Who writes it."""
        return self.request.prompt.selection


class RunningBatch:
    """Rows on decks, one deck a lane."""

    def __init__(self, decks: Sequence[Deck]) -> None:
        self.decks = list(decks)
        self.banks = Banks()
        self.rows: list[Row] = []
        self._row_of: dict[Seat, Row] = {}
        self._mixes: dict[Deck, Mix | None] = {}

    def seats(self, tokens: int, source: int, count: int) -> tuple[Deck, list[Seat]] | None:
        """Seats for `count` rows on the emptiest deck that has room; None where none has."""
        for deck in sorted(self.decks, key=lambda d: len(d.seats)):
            taken: list[Seat] = []
            while len(taken) < count and (seat := deck.seat(tokens, source)):
                taken.append(seat)
            if len(taken) == count:
                return deck, taken
            for seat in reversed(taken):
                deck.leave(seat)
        return None

    def join(self, rows: Sequence[Row], experts: Mapping[str, ExpertWeights]) -> None:
        """Rows come in, with the experts that they use."""
        for row in rows:
            self.rows.append(row)
            self._row_of[row.seat] = row
            self.banks.join(experts[ref] for ref in row.selection.refs)
        self._mixes.clear()

    def leave(self, row: Row, *, wipe: bool = False) -> None:
        """A row goes; see `Deck.leave`."""
        self.rows.remove(row)
        del self._row_of[row.seat]
        row.deck.leave(row.seat, wipe=wipe)
        self.banks.leave(row.selection.refs)
        self._mixes.clear()

    def on(self, deck: Deck) -> list[Row]:
        """A deck's rows, in the order of its batch."""
        return [self._row_of[seat] for seat in deck.seats]

    def mix_of(self, deck: Deck) -> Mix | None:
        """The mix for a step of all rows of a deck."""
        if deck not in self._mixes:
            self._mixes[deck] = self.mix([row.selection for row in self.on(deck)])
        return self._mixes[deck]

    def mix(self, selections: Sequence[Selection]) -> Mix | None:
        """The mix of rows with these selections; None where all take the bare backbone.

        Rows may differ in their token router: each router's rows make a mix of their own, in which
        the others have no part.
        """
        if not any(s.experts for s in selections):
            return None
        stacks = self.banks.stacks()
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
        return Mix(groups, len(selections))
