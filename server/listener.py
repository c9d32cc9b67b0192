"""The HTTP listener: uvicorn, but with its sockets open until the last answer has left.

uvicorn closes its sockets the moment it is told to stop, so a load balancer that asks `/ready`
meets a refused connection instead of a 503. Here a stop goes in order: not ready, while requests
are still taken; draining, while what is here is finished; then closed. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Coroutine

import uvicorn

from server.engine.service import EngineService

POLL_SECONDS = 0.1  # how soon a second Ctrl-C is noticed


class Listener(uvicorn.Server):
    """Serves an app until SIGTERM or SIGINT; a second SIGINT skips all waiting.

    Args:
        service: what is retired and drained before sockets close.
        linger: seconds in which `/ready` says 503 and requests are still taken.
        drain: seconds that running requests may take after that.
        greet: told the port once requests are taken.
    """

    def __init__(
        self, config: uvicorn.Config, service: EngineService, *, linger: float, drain: float,
        greet: Callable[[int], None],
    ) -> None:  # fmt: skip
        config.timeout_graceful_shutdown = math.ceil(drain)
        super().__init__(config)
        self._service = service
        self._linger, self._drain, self._greet = linger, drain, greet

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            self._greet(self.servers[0].sockets[0].getsockname()[1])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Retire, drain, close."""
        self._service.retire()
        await self._unless_forced(asyncio.sleep(self._linger))
        await self._unless_forced(self._service.drain(self._drain))
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
