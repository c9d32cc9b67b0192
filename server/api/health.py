"""`/health` (alive), `/ready` (takes requests), `/metrics` (Prometheus).

Some balancers and monitors ask the first two with HEAD.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from server.api.context import app_context, context
from server.api.faults import ERROR_RESPONSES
from server.api.scope import KEYED, LIMITED

router = APIRouter(tags=["operation"])


class HealthBody(BaseModel):
    """Whether the engine's thread runs; stays `ok` while draining."""

    status: Literal["ok", "dead"]


class ReadyBody(BaseModel):
    """Whether new requests are taken."""

    status: Literal["ready", "loading", "draining"]


@router.head("/health", include_in_schema=False)
@router.get("/health", responses={503: {"model": HealthBody}})
async def health(request: Request, response: Response) -> HealthBody:
    """Alive: a 503 here means that the process should be replaced."""
    service = app_context(request).service
    dead = service.started and not service.alive and not service.draining
    response.status_code = 503 if dead else 200
    return HealthBody(status="dead" if dead else "ok")


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses={503: {"model": ReadyBody}})
async def ready(request: Request, response: Response) -> ReadyBody:
    """Ready: a 503 here means that requests should go elsewhere."""
    service = app_context(request).service
    response.status_code = 200 if service.ready else 503
    if service.retiring:
        return ReadyBody(status="draining")
    return ReadyBody(status="ready" if service.ready else "loading")


@router.get(
    "/metrics", response_class=Response, responses=ERROR_RESPONSES, dependencies=[LIMITED, KEYED]
)
async def metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format; to a limited caller they name its experts alone."""
    ctx = context(request)
    body = ctx.service.metrics.render(ctx.seen.entries if ctx.scope.limited else None)
    return Response(body, media_type=CONTENT_TYPE_LATEST)
