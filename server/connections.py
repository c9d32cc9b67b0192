"""HTTP connections that end: uvicorn's protocol, and a bound on what a client may keep it waiting.

uvicorn ends connections between two requests (`timeout_keep_alive`) and no others: who opens one
and says nothing, sends a header a byte a second or never reads an answer would hold it for ever.
How long a body may take is `server.api.lean`'s. Knows nothing of routes.
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

from server.api.faults import explain
from server.errors import HeadTooLarge, MalformedHead, ServerError, TooSlow, row_of

log = logging.getLogger("sailplane.access")
MAX_HEAD_BYTES = 64 << 10
MAX_PASSED_OVER = 16 << 20
"""Bytes of a body that are read though its request was answered without it. A connection that is
closed with bytes unread is reset, and its client may lose the answer."""
LEAST_TAKEN = 48 << 10
"""Bytes of an answer that a client must take in its time, or the rest: what uvicorn waits for
between two parts of a stream."""


class Connection(HttpToolsProtocol):
    """One connection, and since when its client has kept it waiting, on the loop's clock.

    What is read at a time counts as of the head only if all of it is.

    Attributes:
        head_since: for the rest of a request's head, None where none is due. stuck_since: to take
            what is written, None while little is.
    """

    head_since: float | None = None
    stuck_since: float | None = None
    _heard = False
    _in_body = _head_only = False
    _head_bytes = _passed_over = 0
    _stuck_bytes = 0

    @property
    def answering(self) -> bool:
        """Whether a request is being answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None until the first one
        return cycle is not None and not cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there: the head of its request is due."""
        super().connection_made(transport)
        self.head_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Read on; what belongs to no request that is being answered must become one in time."""
        self._heard, self._head_only = True, not self._in_body
        super().data_received(data)
        if self._head_only and self.head_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
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
        super().on_message_begin()
        self.head_since, self._head_bytes = self.loop.time(), 0

    def on_headers_complete(self) -> None:
        """The head is here; from now on the application waits."""
        self.head_since, self._in_body, self._head_only = None, True, False
        self._passed_over = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is here as a whole; the head of the next is due from now on."""
        self._in_body = False
        if self.head_since is not None:
            self.head_since, self._head_bytes = self.loop.time(), 0
        super().on_message_complete()

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
            if self._heard and not self._in_body:  # whose answer is out
                self._refuse(TooSlow(f"The head was not complete after {patience:g} seconds."))
            else:
                self.transport.close()

    def _refuse(self, error: ServerError) -> None:
        """Say why, and close."""
        log.debug("a connection was closed: %s", error.message)
        body = to_json(explain(error))
        self.transport.write(
            STATUS_LINE[row_of(error).status]
            + b"content-type: application/json\r\nconnection: close\r\n"
            + b"content-length: %d\r\n\r\n" % len(body)
            + body
        )
        self.transport.close()


async def end_late(connections: Iterable[object], patience: float) -> None:
    """Close late connections, again and again: cheaper than a timer for every request."""
    while True:
        await asyncio.sleep(min(1.0, patience / 4))
        for connection in list(connections):
            cast("Connection", connection).end_if_late(patience)
