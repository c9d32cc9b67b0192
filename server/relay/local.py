"""Requests answered by an ASGI app in this process, without a socket.

The app cannot tell it from a server: a client that leaves is an `http.disconnect`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from starlette.types import ASGIApp, Scope
from starlette.types import Message as Event

from server.relay.messages import Asked, Chunk, Head, Message, Whole

LEAVING = 1.0
"""Seconds in which an app ends what it does for a client that left, before it is cancelled."""


class LocalRelay:
    """A `Relay` to one app, whose lifespan is somebody else's.

    Args:
        name: of this replica, where there are several.
    """

    def __init__(self, app: ASGIApp, name: str = "") -> None:
        self._app, self._name = app, name

    async def ask(self, asked: Asked) -> AsyncGenerator[Message]:
        """See `Relay`; what the app raises is raised here."""
        call = _Call(asked)
        task = asyncio.ensure_future(self._app(scope_of(asked), call.receive, call.send))
        task.add_done_callback(lambda _: call.told.put_nowait(None))
        try:
            while (message := await call.told.get()) is not None:
                yield message
            task.result()
        finally:
            call.left.set()
            try:
                if not task.done():
                    await asyncio.wait([task], timeout=LEAVING)
            finally:
                task.cancel()
                # Looked at, though nobody waits: asyncio would complain otherwise.
                task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def ask_all(self, asked: Asked, seconds: float) -> Sequence[Whole]:
        """See `Relay`: there is one."""
        async with asyncio.timeout(seconds):
            return [await self.whole(asked)]

    async def whole(self, asked: Asked) -> Whole:
        """The answer in one piece."""
        head, parts = None, list[bytes]()
        async with aclosing(self.ask(asked)) as answer:
            async for message in answer:
                if isinstance(message, Head):
                    head = message
                parts.append(message.body)
        assert head is not None, "an app answers or raises"
        return Whole(self._name, Head(head.status, head.headers, b"".join(parts)))


class _Call:
    """One request as the app meets it: what it receives, and what it sends as messages."""

    def __init__(self, asked: Asked) -> None:
        # Without a bound: an answer is as long as its request may ask for.
        self.told = asyncio.Queue[Message | None]()
        self.left = asyncio.Event()
        self._body: bytes | None = asked.body
        self._start: Event | None = None

    async def receive(self) -> Event:
        """The body at once, then the client's leaving."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: Event) -> None:
        """A start waits for the first of the body: one message less, and nothing has begun."""
        if event["type"] == "http.response.start":
            self._start = event
            return
        body, more = event.get("body", b""), event.get("more_body", False)
        if self._start is None:
            self.told.put_nowait(Chunk(body, more))
            return
        start, self._start = self._start, None
        headers = tuple((bytes(name), bytes(value)) for name, value in start.get("headers", ()))
        self.told.put_nowait(Head(start["status"], headers, body, more))


def scope_of(asked: Asked) -> Scope:
    """The scope of a request, as a server makes it."""
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": asked.method, "scheme": asked.scheme, "path": asked.path,
        "raw_path": asked.raw_path, "query_string": asked.query, "root_path": "",
        "headers": list(asked.headers), "client": asked.client, "server": None, "state": {},
    }  # fmt: skip
