"""HTTP in front of a relay: reads requests whole, passes them on, and sends what comes back.

A request that nobody has begun to answer is asked once more if who had it is lost. A stream that is
cut ends with an error event. Who changes the library has all others look at it before the answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable
from contextlib import aclosing

from fastapi import Request
from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from server.api.faults import explain, render_error
from server.api.headers import EVERYWHERE
from server.api.lean import in_time, read_body
from server.api.telling import DONE
from server.errors import INTERNAL, Unavailable, row_of
from server.observability.requests import REQUEST_ID
from server.relay.messages import Absent, Asked, Head, Lost, Message, Relay
from server.relay.rules import SCAN, changes_library, is_repeatable

log = logging.getLogger("sailplane.relay")
LOOKING = 10.0
"""Seconds that others have to look at a library that was changed, before its change is answered."""
NAME = b"x-request-id"
OF_BODIES = (b"content-length", b"content-type", b"transfer-encoding")
EVENTS = b"text/event-stream"
CUT = "The replica that answered was lost; what came is all there is. Ask again."
LOST = "The replica that had this request was lost"
NOBODY = "No replica takes requests now."


class Front:
    """ASGI app.

    Args:
        relay: who answers. max_body_bytes: of a request. client_timeout: seconds in which a body
            must arrive. retry_after: seconds that a client is told to wait where there is nobody.
    """

    def __init__(
        self, relay: Relay, *, max_body_bytes: int = 2**20, client_timeout: float | None = None,
        retry_after: int = 5,
    ) -> None:  # fmt: skip
        self._relay = relay
        self._limit, self._client_timeout = max_body_bytes, client_timeout
        self._retry_after = retry_after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        assert scope["type"] == "http", "nothing else is served"
        answer = _Answer(_id_of(scope), send)
        try:
            asked = await self._read(scope, receive, answer.id)
            await _while_client_stays(receive, self._pass_on(asked, answer))
        except ClientDisconnect:
            return
        except Exception as error:
            if answer.ended:
                return
            if answer.begun:
                await answer.cut(error)
                return
            if row_of(error) is INTERNAL:
                log.exception("request %s failed", answer.id.decode())
            await answer.refuse(scope, receive, error)

    async def _read(self, scope: Scope, receive: Receive, id: bytes) -> Asked:
        """The request, whole.

        Raises:
            BodyTooLarge, TooSlow, UnreadEncoding, ClientDisconnect: it is not to be had.
        """
        async with in_time(self._client_timeout):
            body = await read_body(Request(scope, receive), self._limit)
        named = any(name == NAME and value == id for name, value in scope["headers"])
        headers = tuple((bytes(name), bytes(value)) for name, value in scope["headers"])
        client = scope.get("client")
        return Asked(
            scope["method"], scope["path"], scope.get("raw_path") or scope["path"].encode(),
            scope["query_string"], headers if named else (*headers, (NAME, id)), body,
            scope["scheme"], tuple(client) if client else None,
        )  # fmt: skip

    async def _pass_on(self, asked: Asked, answer: _Answer) -> None:
        """Ask, once more where that can be done, and send the answer.

        Raises:
            Unavailable: nobody answers.
            Lost: half of an answer has gone out.
        """
        tries = 2 if is_repeatable(asked.method, asked.path) else 1
        while True:
            tries -= 1
            try:
                await self._ask(asked, answer)
                return
            except Absent:
                raise Unavailable(NOBODY, retry_after=self._retry_after) from None
            except Lost:
                if answer.begun:
                    raise
                log.warning("request %s lost its replica", answer.id.decode())
                if not tries:
                    raise self._lost(asked) from None

    def _lost(self, asked: Asked) -> Unavailable:
        if is_repeatable(asked.method, asked.path):
            return Unavailable(f"{LOST}, and so was the next one.", retry_after=self._retry_after)
        return Unavailable(
            f"{LOST}. It may have been carried out: look before you send it again.",
            retry_after=self._retry_after,
        )

    async def _ask(self, asked: Asked, answer: _Answer) -> None:
        async with aclosing(self._relay.ask(asked)) as messages:
            async for message in messages:
                if isinstance(message, Head) and message.status < 400:
                    await self._spread(asked)
                await answer.put(message)
        if not answer.ended:
            raise Lost

    async def _spread(self, asked: Asked) -> None:
        """Have all look at the library that was just changed: whoever is asked next knows it."""
        if not changes_library(asked.method, asked.path):
            return
        headers = tuple(h for h in asked.headers if h[0] not in OF_BODIES)
        look = Asked("POST", SCAN, SCAN.encode(), b"", headers, client=asked.client)
        for told in await self._relay.ask_all(look, LOOKING):
            if told.head.status != 200:
                log.warning("replica %s did not look: %d", told.replica, told.head.status)


class _Answer:
    """What has gone out of one answer."""

    def __init__(self, id: bytes, send: Send) -> None:
        self.id = id
        self._send = send
        self.begun = self.ended = False
        self._streams = self._done = False

    async def put(self, message: Message) -> None:
        """Send a message on."""
        if isinstance(message, Head):
            self.begun = True
            kind = next((v for n, v in message.headers if n == b"content-type"), b"")
            self._streams = kind.startswith(EVENTS)
            await self._send(
                {"type": "http.response.start", "status": message.status,
                 "headers": list(message.headers)}
            )  # fmt: skip
        self._done = self._done or message.body.endswith(DONE)
        await self._body(message.body, message.more)
        self.ended = not message.more

    async def cut(self, error: Exception) -> None:
        """End an answer that will not be complete, so that its reader can tell.

        Raises:
            Exception: the same error, where only the connection's end can tell.
        """
        log.warning("request %s was cut: %s", self.id.decode(), type(error).__name__)
        if not self._streams:
            raise error
        told = b"" if self._done else b"data: " + to_json(explain(Unavailable(CUT))) + b"\n\n"
        await self._body(told, more=False)

    async def refuse(self, scope: Scope, receive: Receive, error: Exception) -> None:
        """Answer with an error of our own."""
        response = render_error(error)
        response.raw_headers += [*EVERYWHERE, (NAME, self.id)]
        await response(scope, receive, self._send)

    async def _body(self, body: bytes, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _id_of(scope: Scope) -> bytes:
    """The caller's request id, or a new one: both tries of a request have the same."""
    sent = (value for name, value in scope["headers"] if name == NAME and REQUEST_ID.match(value))
    return next(sent, b"") or os.urandom(12).hex().encode()


async def _while_client_stays(receive: Receive, work: Awaitable[None]) -> None:
    """Await `work`; cancel it when the client closes the connection.

    Raises:
        ClientDisconnect: it did.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(watch())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.wait((working, watching))
