"""The gate: every request passes here before anything else is known of it.

Says who calls, and refuses who may not, or may not now. A request without a key is answered before
its body is read. Without a file of keys everybody may do everything, and the gate stands open.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.caller import CALLER, NEEDED, Caller
from server.access.keyfile import KeyStore
from server.access.keys import Key
from server.access.limits import Meters
from server.access.rules import needed
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
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[NEEDED] = permission = needed(scope["method"], scope["path"])
        if self._store is None or permission is None:
            await self.app(scope, receive, send)
            return
        try:
            key = _key_of(scope, self._store)
            scope[CALLER] = caller = Caller(key, key.permissions, key.scope)
            if not caller.may(permission):
                raise NotAllowed(f"This key lacks the permission {permission!r}.")
            await self._metered(key, scope, receive, send)
        except ServerError as error:
            await refuse(error, self._routes, scope, receive, send)

    async def _metered(self, key: Key, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on within the key's limits, and count what the answer took."""
        meter = self._meters.of(key)

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(meter.headers())
            await send(message)

        with meter.admitted():
            await self.app(scope, receive, told if meter.metered else send)
        if meter.tokens:
            notes = scope.get(NOTES, {})
            meter.tokens.owe(notes.get("tokens", 0) + notes.get("written", 0))


def _key_of(scope: Scope, store: KeyStore) -> Key:
    said = Headers(scope=scope).get("authorization", "")
    if not said.lower().startswith(SCHEME):
        raise UnknownCaller("Send a key of this server: `Authorization: Bearer <key>`.")
    key = store.ring.find(said[len(SCHEME) :].strip())
    if key is None:
        raise UnknownCaller("This server knows no such key; it may have been removed or expired.")
    return key
