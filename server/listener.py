"""The HTTP listener: uvicorn, but with its sockets open until the last answer has left.

uvicorn closes its sockets the moment it is told to stop, so a load balancer that asks `/ready`
meets a refused connection instead of a 503. Here a stop goes in order: not ready, while requests
are still taken; draining, while what is here is finished; then closed. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable, Coroutine

import uvicorn

from server.connections import end_late
from server.engine.service import EngineService

POLL_SECONDS = 0.1  # how soon a second Ctrl-C is noticed


class Listener(uvicorn.Server):
    """Serves an app until SIGTERM or SIGINT; a second SIGINT skips all waiting.

    Args:
        service: what is retired and drained before sockets close.
        patience: seconds that a client may keep a connection waiting.
        linger: seconds in which `/ready` says 503 and requests are still taken.
        drain: seconds that running requests may take after that.
        greet: told the port once requests are taken.
    """

    def __init__(
        self, config: uvicorn.Config, service: EngineService, *, patience: float, linger: float,
        drain: float, greet: Callable[[int], None],
    ) -> None:  # fmt: skip
        super().__init__(config)
        self._service = service
        self._patience, self._linger, self._drain = patience, linger, drain
        self._greet = greet
        self._late: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            late = end_late(self.server_state.connections, self._patience)
            self._late = asyncio.create_task(late)
            self._greet(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Retire, drain, close."""
        self._service.retire()
        # Who keeps a connection is told to open the next elsewhere, before this one is closed.
        self.server_state.default_headers.append((b"connection", b"close"))
        await self._unless_forced(asyncio.sleep(self._linger))
        end = time.monotonic() + self._drain
        await self._unless_forced(self._service.drain(self._drain))
        self.config.timeout_graceful_shutdown = max(1, math.ceil(end - time.monotonic()))
        await super().shutdown(sockets)

    async def _unless_forced(self, work: Coroutine[object, object, None]) -> None:
        """Wait for the work, or for somebody who wants out at once."""
        task = asyncio.ensure_future(work)
        while not (task.done() or self.force_exit):
            await asyncio.wait([task], timeout=POLL_SECONDS)
        if task.done():
            task.result()
        else:
            task.cancel()
