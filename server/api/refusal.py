"""A request that is refused before a route has it: the error, and the route's name all the same.

Metrics and the log tell which route was meant, which only the router would know otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from server.api.faults import ERROR_CODE, render_error
from server.errors import ServerError, row_of


async def refuse(
    error: ServerError, routes: Sequence[BaseRoute], scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer with an error.

    Args:
        routes: those of the app.
    """
    scope[ERROR_CODE] = row_of(error).code
    for route in routes:
        match, found = route.matches(scope)
        if match is Match.FULL:
            scope.update({**found, "route": route})
            break
    await render_error(error)(scope, receive, send)
