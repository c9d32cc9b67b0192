"""The gate: every request passes here before anything else is known of it.

Says who calls, and refuses who may not, or may not now. A request without a key is answered before
its body is read. Without a file of keys everybody may do everything, and the gate stands open to
all but pages of other sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.caller import CALLER, NEEDED, Caller
from server.access.keyfile import KeyStore
from server.access.keys import Key
from server.access.limits import Meter, Meters
from server.access.rules import needed
from server.access.sites import LOOKING, from_another_site
from server.api.refusal import refuse
from server.errors import NotAllowed, ServerError, UnknownCaller
from server.observability.requests import NOTES

SCHEME = "bearer "


class Gate:
    """ASGI middleware.

    Args:
        store: the keys in force; None: there are none, and everybody may do everything.
        routes: those of the app, to name the one that was refused.
    """

    def __init__(self, app: ASGIApp, store: KeyStore | None, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self._store, self._routes = store, routes
        self._meters = Meters()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its caller, or refuse it."""
        if scope["type"] == "websocket" and from_another_site(Headers(scope=scope)):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] not in LOOKING and from_another_site(Headers(scope=scope)):
            error = NotAllowed("A browser sent this for a page of another site.")
            await refuse(error, self._routes, scope, receive, send)
            return
        scope[NEEDED] = permission = needed(scope["method"], scope["path"])
        if self._store is None or permission is None:
            await self.app(scope, receive, send)
            return
        with ExitStack() as held:
            told = send
            try:
                key = _key_of(scope, self._store)
                scope[CALLER] = caller = Caller(key, key.permissions, key.scope)
                if not caller.may(permission):
                    raise NotAllowed(f"This key lacks the permission {permission!r}.")
                meter = self._meters.of(key)
                told = _telling(meter, send) if meter.metered else send
                held.enter_context(meter.admitted())
            except ServerError as error:
                await refuse(error, self._routes, scope, receive, told)
                return
            held.callback(_charge, meter, scope)
            await self.app(scope, receive, told)


def _charge(meter: Meter, scope: Scope) -> None:
    """Count the tokens that an answer took, as far as it came: a client may have left."""
    if meter.tokens:
        notes = scope.get(NOTES, {})
        meter.tokens.owe(notes.get("tokens", 0) + notes.get("written", 0))


def _telling(meter: Meter, send: Send) -> Send:
    """`send`, with what is left of the key's limits in the headers."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(meter.headers())
        await send(message)

    return told


def _key_of(scope: Scope, store: KeyStore) -> Key:
    said = Headers(scope=scope).get("authorization", "")
    if not said.lower().startswith(SCHEME):
        raise UnknownCaller("Send a key of this server: `Authorization: Bearer <key>`.")
    key = store.ring.find(said[len(SCHEME) :].strip())
    if key is None:
        raise UnknownCaller("This server knows no such key; it may have been removed or expired.")
    return key
