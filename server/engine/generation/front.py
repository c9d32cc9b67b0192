"""The event loop's side of generation: prompts in, a ticket out.

The loop itself runs in the engine's thread. Knows nothing of HTTP and nothing of routing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from server.engine.generation.loop import GenerationLoop
from server.engine.generation.messages import Prompt
from server.engine.generation.request import Request, Ticket
from server.errors import QueueFull


class Writing:
    """Begins to answer prompts.

    Args:
        loop: what answers. wake: tells the engine's thread that there is work. max_waiting: prompts
            that may wait for a row.
    """

    def __init__(self, loop: GenerationLoop, wake: Callable[[], None], max_waiting: int) -> None:
        self.loop, self._wake, self.max_waiting = loop, wake, max_waiting

    def begin(
        self, prompts: Sequence[Prompt], deadline: float | None = None, since: float | None = None
    ) -> Ticket:
        """Answer prompts together; the ticket tells of all their texts.

        Args:
            deadline: on the clock of `time.monotonic`. since: when they were asked for, if that was
                before now.

        Raises:
            QueueFull: too many wait. NeverFits: they could never fit into memory.
        """
        since = time.monotonic() if since is None else since
        waiting = self.loop.waiting
        if waiting and waiting + len(prompts) > self.max_waiting:
            raise QueueFull(f"{waiting} prompts wait and the limit is {self.max_waiting}.")
        ticket = Ticket(asyncio.get_running_loop(), sum(prompt.count for prompt in prompts))
        try:
            for prompt in prompts:
                self.loop.put(Request(prompt, ticket, deadline, since=since))
        except Exception:
            ticket.cancel()
            raise
        finally:
            self._wake()
        return ticket
