"""What one step of generation brings: told to callers in one call, and counted."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from server.engine.generation.messages import Piece
from server.engine.generation.request import Event, Request, Ticket


@dataclass(eq=False)
class Outcomes:
    """What one step brings.

    Attributes:
        events: for whoever holds the tickets. read, reused, tokens: how many were read, did not
            have to be read, and were written. first_after: seconds to each prompt's first token.
            between: seconds between each prompt's last token and this one.
    """

    events: list[tuple[Ticket, Event]] = field(default_factory=list)
    read: int = 0
    reused: int = 0
    tokens: int = 0
    first_after: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)

    def piece(self, request: Request, piece: Piece, now: float) -> None:
        """Note what is new of a prompt's text, and when it came."""
        self.events.append((request.ticket, piece))
        self.tokens += len(piece.tokens)
        if request.first_at is None:
            request.first_at = now
            self.first_after.append(now - request.since)
        elif request.last_at is not None and request.last_at != now:
            self.between.append(now - request.last_at)
        request.last_at = now

    def error(self, request: Request, error: Exception) -> None:
        """Note why a prompt could not be answered."""
        self.events.append((request.ticket, error))

    def tell(self) -> None:
        """Hand all events to the event loops of those who wait."""
        by_loop: dict[AbstractEventLoop, list[tuple[Ticket, Event]]] = {}
        for ticket, event in self.events:
            by_loop.setdefault(ticket.loop, []).append((ticket, event))
        for loop, events in by_loop.items():
            with suppress(RuntimeError):  # it may have closed on a drain that ran out of time
                loop.call_soon_threadsafe(_deliver, events)


def _deliver(events: Sequence[tuple[Ticket, Event]]) -> None:
    for ticket, event in events:
        ticket.put(event)
