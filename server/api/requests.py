"""`GET /v1/requests`: the newest lines of the routing log, for administrators.

The log holds no text of a request. Where no log is kept, there is nothing to tell.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from server.api.context import context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, json_response
from server.evidence.record import RoutedLine
from server.evidence.writer import KEPT

router = APIRouter(prefix="/v1", tags=["operation"], route_class=LeanRoute)


class RequestList(BaseModel):
    """Samples that were answered, the newest first."""

    object: Literal["list"] = "list"
    data: list[RoutedLine]


@router.get("/requests", response_model=RequestList, responses=ERROR_RESPONSES)
async def recent_requests(
    request: Request, limit: Annotated[int, Query(ge=1, le=KEPT)] = 50
) -> Response:
    """How recent samples were routed: those whose experts the caller may use."""
    ctx = context(request)
    newest = ctx.require_routing_log().recent
    seen = ctx.seen.entries if ctx.scope.limited else None
    shown = [line for line in newest if seen is None or names(line) <= seen.keys()]
    return json_response(RequestList(data=shown[:limit]))


def names(line: RoutedLine) -> set[str]:
    """The experts that a line names."""
    chosen = {e.id for e in line.selection.experts}
    return chosen | {c.id for c in line.candidates} | set(line.replaced)
