"""A full queue, said at once: before a body is read, checked and thrown away.

Far more requests than can be answered must not cost those that can: the general path to a refusal
takes as much of the interpreter as an answer's own share. Only what could not have been queued is
refused here; a request of more samples than there is room for is refused where they are counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from server.api.refusal import refuse
from server.engine.service import EngineService
from server.errors import QueueFull

QUEUED = frozenset({"/v1/decisions", "/v1/embeddings", "/v1/route"})
"""Each request for these waits in the queue with one sample or more."""


class Shedding:
    """ASGI middleware around all routes, which it is told to name the one that is refused."""

    def __init__(self, app: ASGIApp, service: EngineService, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.service, self.routes = service, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] == "http" and scope["path"] in QUEUED and scope["method"] == "POST":
            try:
                self.service.require_room()
            except QueueFull as full:
                await refuse(full, self.routes, scope, receive, send)
                return
        await self.app(scope, receive, send)
