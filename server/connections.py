"""HTTP connections that end: uvicorn's protocol, and a bound on what a client may keep it waiting.

uvicorn ends connections between two requests (`timeout_keep_alive`) and no others: who opens one
and says nothing, sends a header a byte a second or never reads an answer would hold it for ever.
How long a body may take is `server.api.lean`'s. Knows nothing of routes, but that websockets are
the console's alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import cast

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from server.access.rules import is_page
from server.api.faults import explain
from server.errors import HeadTooLarge, MalformedHead, ServerError, TooSlow, row_of

log = logging.getLogger("sailplane.access")
MAX_HEAD_BYTES = 64 << 10
MAX_PASSED_OVER = 16 << 20
"""Bytes of a body that are read though its request was answered without it."""
LEAST_TAKEN = 48 << 10
"""Bytes of an answer that a client must take in its time, or the rest: what uvicorn waits for
between two parts of a stream."""


class Connection(HttpToolsProtocol):
    """One connection, and since when its client has kept it waiting, on the loop's clock.

    What is read at a time counts as of the head only if all of it is.

    Attributes:
        head_since: for the rest of a request's head, or of a body whose answer is out; None where
            neither is due. stuck_since: to take what is written, None while little is.
    """

    head_since: float | None = None
    stuck_since: float | None = None
    _in_head = _in_body = _head_only = _parting = False
    _unasked = False  # a body that is not sent before it is asked for
    _head_bytes = _bodyless_bytes = _passed_over = _stuck_bytes = 0

    @property
    def answering(self) -> bool:
        """Whether a request is being answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None until the first one
        return cycle is not None and not cycle.response_complete

    @property
    def _upgrades(self) -> bool:
        """Whether what was asked for is a websocket, and is served."""
        parser = self.parser  # None once the connection is lost
        return parser is not None and parser.should_upgrade() and self._should_upgrade()

    def _should_upgrade(self) -> bool:
        path, _, _ = self.url.decode("latin-1").partition("?")
        return is_page(path) and super()._should_upgrade()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: the head of its request is due."""
        super().connection_made(transport)
        self.head_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Read on; what belongs to no request that is being answered must become one in time."""
        self._head_only = not self._in_body
        self._bodyless_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_body and self._bodyless_bytes > MAX_HEAD_BYTES:
            log.debug("a connection was closed: its body has trailers without end")
            self.transport.close()
        elif self._head_only and self.head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HeadTooLarge(f"The head has more than {MAX_HEAD_BYTES} bytes."))
        elif not self.answering:
            if self.head_since is None and not self.timeout_keep_alive_task:
                self.head_since = self.loop.time()
            if self._in_body:  # of a request that was answered before it was read
                self._passed_over += len(data)
                if self._passed_over > MAX_PASSED_OVER:
                    self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self.head_since, self._in_head, self._head_bytes = self.loop.time(), True, 0

    def on_headers_complete(self) -> None:
        """The head is here; from now on the application waits."""
        self.head_since, self._in_head, self._head_only, self._in_body = None, False, False, True
        self._passed_over = self._bodyless_bytes = 0
        self._unasked = self.expect_100_continue
        super().on_headers_complete()
        if not self._upgrades:
            self.cycle.transport = cast("asyncio.Transport", _Parting(self, self.cycle))

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        self._bodyless_bytes, self._unasked = 0, False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here as a whole; if its answer is out, the client may send the next."""
        self._in_body = False
        super().on_message_complete()
        if self._upgrades:  # another protocol takes over
            return
        if self._parting:
            self.transport.close()
        elif not self.answering:
            self.head_since = None
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        """The answer is out; a body that was not asked for may come now, or the next request."""
        super().on_response_complete()
        if self._unasked and self._in_body:
            self.part(self.cycle)

    def part(self, cycle: RequestResponseCycle) -> None:
        """Close after an answer, but not before the client has said all, in its time.

        Closed with bytes unread, a connection is reset, and the answer may be lost on its way.
        """
        if self.cycle is cycle and self._in_body and cycle.response_complete:
            self._parting = True
            if self.head_since is None:
                self.head_since = self.loop.time()
            if self.transport.can_write_eof():
                self.transport.write_eof()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """More is written than the client takes."""
        super().pause_writing()
        self.stuck_since = self.loop.time()
        self._stuck_bytes = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """The client has taken most of it."""
        super().resume_writing()
        self.stuck_since = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, in the shape of all errors."""
        self._refuse(MalformedHead(msg))

    def end_if_late(self, patience: float) -> None:
        """Close the connection where its client has kept it waiting longer than `patience`."""
        now = self.loop.time()
        if self.stuck_since is not None and now - self.stuck_since > patience:
            left = self.transport.get_write_buffer_size()
            if self._stuck_bytes - left < LEAST_TAKEN:
                log.debug("a connection was cut: its client takes no answer")
                self.transport.abort()
            self.stuck_since, self._stuck_bytes = now, left
        elif not self.answering and self.head_since and now - self.head_since > patience:
            if self._in_head:
                self._refuse(TooSlow(f"The head was not complete after {patience:g} seconds."))
            else:
                self.transport.close()

    def _refuse(self, error: ServerError) -> None:
        """Say why, unless in the middle of an answer, and close."""
        log.debug("a connection was closed: %s", error.message)
        begun = self.answering and self.cycle.response_started
        if begun or self.pipeline or self._parting:
            self.transport.close()
            return
        body = to_json(explain(error))
        self.transport.write(
            STATUS_LINE[row_of(error).status]
            + b"content-type: application/json\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()


class _Parting:
    """The transport of one answer, which closes by `Connection.part`."""

    def __init__(self, connection: Connection, cycle: RequestResponseCycle) -> None:
        self._connection, self._cycle = connection, cycle

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection.transport, name)

    def close(self) -> None:
        self._connection.part(self._cycle)


async def end_late(connections: Iterable[object], patience: float) -> None:
    """Close late connections, again and again: cheaper than a timer for every request.

    Websockets are none of ours: they are pinged, and closed when nothing comes back.
    """
    while True:
        await asyncio.sleep(min(1.0, patience / 4))
        for connection in list(connections):
            if isinstance(connection, Connection):
                connection.end_if_late(patience)
