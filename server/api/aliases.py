"""`/v1/aliases`: other names of experts. An alias answers wherever an expert is named."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from experts.snapshot import Snapshot
from server.api.context import Context, context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, json_response
from server.api.wire.base import Text, Wire
from server.observability.audit import about

router = APIRouter(prefix="/v1", tags=["experts"], route_class=LeanRoute)


class PutAlias(Wire):
    """What the name is to stand for: an id (whichever version is current) or `id@version`."""

    expert: Text


class AliasBody(BaseModel):
    """One alias. `version` is the one that answers now; null when none can."""

    object: Literal["alias"] = "alias"
    name: str
    expert: str
    version: int | None


class AliasList(BaseModel):
    """All of them, by name."""

    object: Literal["list"] = "list"
    data: list[AliasBody]


@router.get("/aliases", response_model=AliasList, responses=ERROR_RESPONSES)
async def list_aliases(request: Request) -> AliasList:
    """Every alias, and what it stands for."""
    seen = context(request).seen
    return AliasList(data=[_body(seen, name, ref) for name, ref in seen.aliases.items()])


@router.put("/aliases/{name}", response_model=AliasBody, responses=ERROR_RESPONSES)
async def put_alias(body: PutAlias, request: Request, name: str) -> Response:
    """Have a name stand for an expert, or for something else than before, in one step.

    Requests that began with what it stood for finish with that.
    """
    ctx = context(request)
    about(request.scope, expert=body.expert)
    await _set(ctx, name, body.expert)
    return json_response(_body(ctx.seen, name, body.expert))


@router.delete("/aliases/{name}", status_code=204, responses=ERROR_RESPONSES)
async def delete_alias(name: str, request: Request) -> Response:
    """Take a name away; what it stood for stays."""
    await _set(context(request), name, None)
    return Response(status_code=204)


async def _set(ctx: Context, name: str, ref: str | None) -> None:
    """Raises as `Library.set_alias`."""
    await ctx.service.run_blocking(_change, ctx, name, ref)


def _change(ctx: Context, name: str, ref: str | None) -> None:
    engine = ctx.service.engine
    with engine.changing():
        engine.library.set_alias(name, ref, ctx.scope)


def _body(seen: Snapshot, name: str, ref: str) -> AliasBody:
    version = seen.find(ref).manifest.version if seen.stands(ref) else None
    return AliasBody(name=name, expert=ref, version=version)
