"""`POST /v1/route`: who would answer, and why, without an answer.

The body is that of `/v1/decisions`. The trace is the point of it, so `trace: none` is an error.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from server.api.context import Answered, Context, context
from server.api.decisions import (
    DecisionRequest,
    RoutingReport,
    Usage,
    answerable,
    decision_samples,
    traces_json,
    usage_json,
)
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, respond
from server.errors import RequestError

router = APIRouter(prefix="/v1", tags=["routing"], route_class=LeanRoute)


class RouteResponse(BaseModel):
    """A trace per question, in order."""

    model: str
    routing: RoutingReport
    usage: Usage


@router.post("/route", response_model=RouteResponse, responses=ERROR_RESPONSES)
async def explain_route(body: DecisionRequest, request: Request) -> Response:
    """Route every question and return the traces."""
    ctx = context(request)
    return respond(request, await explain(ctx, body, ctx.deadline(body.routing.timeout_ms)))


async def explain(ctx: Context, body: DecisionRequest, deadline: float | None) -> Answered:
    """The traces of a request, over HTTP or not. See `server.api.decisions.decide`."""
    samples = decision_samples(ctx, body, predict=False)
    if any(sample.options.trace == "none" for sample in samples):
        raise RequestError("/v1/route returns traces: ask for one.", param="routing.trace")
    results = answerable(await ctx.service.submit(samples, deadline=deadline))
    told: dict[str, object] = {
        "model": body.model,
        "routing": {"questions": traces_json(samples, results)},
        "usage": usage_json(results),
    }
    return Answered(told, samples, results)
