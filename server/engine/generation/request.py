"""One prompt on its way through generation, and the hand by which its caller holds it.

The engine's thread writes to it, the event loop reads from it. Knows no batch.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from functools import cached_property

from experts.cache import Lease
from experts.weights import ExpertWeights
from server.engine.generation.messages import Piece, Prompt
from server.engine.messages import Stage
from server.engine.named import naming
from server.engine.timeline import TIMELINE

Event = Piece | Exception


class Ticket:
    """What a caller holds of a prompt that is being answered.

    Attributes:
        cancelled: nobody waits for it any more. reused: tokens of its prompts that did not have
            to be read, since others began with them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self.cancelled = False
        self.reused = 0
        self._loop, self._left = loop, count
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._begun = time.perf_counter()

    def cancel(self) -> None:
        """Have its rows freed at the next step."""
        self.cancelled = True

    def put(self, event: Event) -> None:
        """Tell the caller something; in the event loop."""
        self._events.put_nowait(event)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where `put` may be called."""
        return self._loop

    async def pieces(self) -> AsyncGenerator[Piece]:
        """What is written, as it is, until every text has ended.

        Raises:
            Exception: why the prompt could not be answered to the end.
        """
        timeline = TIMELINE.get()
        try:
            while self._left:
                event = await self._events.get()
                if isinstance(event, Exception):
                    raise event
                self._left -= event.finish is not None
                if timeline is not None:
                    timeline.wrote(len(event.tokens))
                yield event
        finally:
            self.cancel()
            if timeline is not None:
                timeline.stages.append(Stage("generate", self._begun, time.perf_counter()))


@dataclass(eq=False)
class Request:
    """A prompt in the engine.

    Attributes:
        deadline: on the clock of `time.monotonic`, as all times here. lease: pins its experts,
            until it ends. reused: tokens of it that need not be read. since: when it was asked for.
        first_at, last_at: when its first and its latest token came.
    """

    prompt: Prompt
    ticket: Ticket
    deadline: float | None = None
    lease: Lease[ExpertWeights] | None = None
    reused: int = 0
    since: float = field(default_factory=time.monotonic)
    first_at: float | None = None
    last_at: float | None = None

    def experts(self) -> list[ExpertWeights]:
        """Its experts, waited for if need be.

        Raises:
            Exception: why one of them could not be loaded.
        """
        assert self.lease is not None
        self.lease.wait()
        for ref, error in self.lease.failed.items():
            raise naming(ref, error)
        return [self.lease.experts[ref] for ref in self.prompt.selection.refs]

    @cached_property
    def sites(self) -> frozenset[str]:
        """Where its experts act."""
        return frozenset(site for expert in self.experts() for site in expert.sites)

    @property
    def is_late(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline
