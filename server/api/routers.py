"""`GET /v1/routers`: the ways to route that `routing.router` may name."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from routers.presets import Preset
from server.api.context import context
from server.api.faults import ERROR_RESPONSES

router = APIRouter(prefix="/v1", tags=["routing"])


class RouterBody(BaseModel):
    """A preset: what it does, the paper it is from, and whether it weighs experts per token."""

    id: str
    object: Literal["router"] = "router"
    says: str
    paper: str
    tokens: bool


class RouterList(BaseModel):
    """All of them, and which one routes where a request names none."""

    object: Literal["list"] = "list"
    default: str
    data: list[RouterBody]


@router.get("/routers", response_model=RouterList, responses=ERROR_RESPONSES)
async def list_routers(request: Request) -> RouterList:
    """Everything that may stand in `routing.router`."""
    presets = context(request).service.engine.presets
    return RouterList(
        default=presets["default"].name if "default" in presets else "",
        data=[_body(name, preset) for name, preset in presets.items() if name == preset.name],
    )


def _body(name: str, preset: Preset) -> RouterBody:
    return RouterBody(
        id=name, says=preset.says, paper=preset.paper, tokens=preset.token is not None
    )
