"""The outermost layer of a request: its id, its metrics, its log line, and its last resort.

One JSON line per request, without the request's text: who asked what is the client's matter.
An error that nothing else answered is logged with its traceback and answered with 500 here.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from experts.exhaustion import as_exhausted
from server.access.caller import caller_of
from server.access.rules import PAGE, is_page
from server.api.faults import ERROR_CODE, render_error
from server.engine.timeline import TIMELINE, Timeline
from server.errors import row_of
from server.observability.audit import audit
from server.observability.metrics import Metrics
from server.observability.tracer import Ended, Tracer

NOTES = "sailplane.notes"
"""Key of the ASGI scope: what a handler adds to the log line (numbers and ids, no text)."""
WATCHED = "sailplane.watched"
"""Key of the ASGI scope: the `Watched` of the request."""
QUIET = frozenset({"/", "/health", "/ready", "/metrics", PAGE})
REQUEST_ID = re.compile(rb"^[\x21-\x7e]{1,128}$")
TRACEPARENT = re.compile(r"^[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

log = logging.getLogger("sailplane.access")


@dataclass(slots=True)
class Watched:
    """One request on its way; `page`: for the console, whose parts count as one route."""

    id: bytes
    traceparent: str | None
    begun: float
    status: int = 0
    page: bool = False

    @property
    def milliseconds(self) -> float:
        """Since it arrived."""
        return round((time.perf_counter() - self.begun) * 1000, 2)

    @property
    def trace_id(self) -> str | None:
        """Of the caller's trace, if it is in one."""
        found = TRACEPARENT.match(self.traceparent or "")
        return found[1] if found else None


class RequestWatch:
    """ASGI middleware; must wrap everything that may fail.

    Args:
        tracer: told of every request, with the times of its stages; None notes no times.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracer: Tracer | None = None) -> None:
        self.app, self.metrics, self.tracer = app, metrics, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and tell of it when it has been answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        watched = Watched(*_identity(scope), begun=time.perf_counter(), page=is_page(scope["path"]))
        scope[WATCHED] = watched
        timeline = Timeline() if self.tracer else None
        noting = TIMELINE.set(timeline)

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                watched.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", watched.id)]
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, stamped)
            except Exception as raised:
                error = as_exhausted(raised)
                scope[ERROR_CODE] = row_of(error).code
                log.exception("request %s failed", watched.id.decode())
                if watched.status:
                    raise  # half a response is out: the server must cut the connection
                await render_error(error)(scope, receive, stamped)
            finally:
                TIMELINE.reset(noting)
                self._tell(scope, watched, timeline)

    def _tell(self, scope: Scope, watched: Watched, timeline: Timeline | None) -> None:
        now = time.perf_counter()
        seconds = now - watched.begun
        route = PAGE if watched.page else getattr(scope.get("route"), "path", "unmatched")
        code = scope.get(ERROR_CODE)
        key = caller_of(scope).name
        self.metrics.request(route, watched.status, seconds, code)
        if key is not None:
            self.metrics.keyed(key, watched.status)
        audit(scope, watched.id.decode(), watched.status, code)
        if route in QUIET:
            return
        trace_id = watched.trace_id
        if self.tracer is not None and timeline is not None:
            ended = Ended(
                watched.id.decode(), scope["method"], route, watched.status, code,
                watched.traceparent, watched.begun, now,
            )  # fmt: skip
            trace_id = self.tracer.tell(ended, timeline)
        if not log.isEnabledFor(logging.INFO):
            return
        line = {
            "time": round(time.time(), 3),
            "event": "request",
            "request_id": watched.id.decode(),
            "trace_id": trace_id,
            "method": scope["method"],
            "route": route,
            "status": watched.status,
            "milliseconds": round(seconds * 1000, 2),
            "error": code,
            **({} if key is None else {"key": key}),
            **scope.get(NOTES, {}),
        }
        log.info(json.dumps(line))


def _identity(scope: Scope) -> tuple[bytes, str | None]:
    """The caller's request id, or a new one; and what it says of the trace it is in."""
    request_id, traceparent = b"", None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.match(value):
            request_id = value
        elif name == b"traceparent":
            traceparent = value.decode("latin-1")
    return request_id or os.urandom(12).hex().encode(), traceparent
