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
    """How recent samples were routed: of a limited caller, those that could use no more than it."""
    ctx = context(request)
    newest = ctx.require_routing_log().recent
    shown = [line for scope, line in newest if scope.within(ctx.scope)]
    return json_response(RequestList(data=shown[:limit]))
