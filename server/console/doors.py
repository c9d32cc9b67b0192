"""What stands before the console's library: it is open to who has no key, and bounded here.

Passes on the page, the files that it is made of, and its websocket; nothing else is there. A page
takes memory from when it is asked for, so those that nobody connects to make room for newer ones,
and no more than so many are connected at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

MOST = 64
"""Pages that are connected, and again those that are not yet."""
FILES, SOCKET = "/_nicegui/", "/_nicegui_ws/"
TRY_LATER = 1013
FULL = "Too many pages of the console are open. Close some, or try again in a minute."


class Client(Protocol):
    """A page, as NiceGUI knows it."""

    created: float

    @property
    def has_socket_connection(self) -> bool:
        """Whether somebody looks at it."""
        ...

    def delete(self) -> None:
        """Let it go."""
        ...


@dataclass
class Doors:
    """ASGI app before another.

    Attributes:
        clients: the pages there are. sockets: how many websockets are open, of pages or not.
    """

    app: ASGIApp
    clients: Callable[[], Sequence[Client]]
    sockets: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is the console's, or refuse it."""
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        elif refusal := self._refusal(scope):
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a websocket on; its library knows what to say to one that is not of a page."""
        if self.sockets >= MOST:
            await send({"type": "websocket.close", "code": TRY_LATER})
            return
        self.sockets += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.sockets -= 1

    def _refusal(self, scope: Scope) -> Response | None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["method"] not in ("GET", "HEAD") or path.startswith(SOCKET):
            return PlainTextResponse("The console speaks by websocket.", 405)
        if path.startswith(FILES):
            return None
        if path not in ("", "/"):
            return PlainTextResponse("The console has no such page.", 404)
        return None if self._make_room() else PlainTextResponse(FULL, 503)

    def _make_room(self) -> bool:
        """Whether one more page may be opened; the oldest that nobody connected to gives way."""
        clients = self.clients()
        if sum(client.has_socket_connection for client in clients) >= MOST:
            return False
        waiting = [client for client in clients if not client.has_socket_connection]
        for client in sorted(waiting, key=lambda c: c.created)[: max(0, len(waiting) - MOST + 1)]:
            client.delete()
        return True
