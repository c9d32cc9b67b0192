"""`GET /v1/models`: what may stand in `model`: auto, the backbone, every expert and alias."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from experts.backbones import LanguageModel
from server.access.rules import ADMIN
from server.api.context import AUTO, Context, context
from server.api.faults import ERROR_RESPONSES
from server.errors import UnknownModel

router = APIRouter(prefix="/v1", tags=["models"])
OWNER = "sailplane"
READS = ("/v1/decisions", "/v1/embeddings", "/v1/route")
WRITES, CHATS = "/v1/completions", "/v1/chat/completions"


class ModelBody(BaseModel):
    """A model, with vLLM's two extra fields: `parent` is an expert's backbone, `root` its folder.

    Where a folder lies is told to administrators only. `answers`, of the backbone and of auto: the
    routes that they answer.

    An alias has the folder of the expert or version that it stands for.

    `created` is when this server started: experts and backbones are older than it knows.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = OWNER
    root: str | None = None
    parent: str | None = None
    answers: list[str] | None = None


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


@router.get("/models", response_model=ModelList, responses=ERROR_RESPONSES)
async def list_models(request: Request) -> ModelList:
    """Everything that may stand in `model`."""
    return ModelList(data=_models(context(request)))


@router.get("/models/{model}", response_model=ModelBody, responses=ERROR_RESPONSES)
async def get_model(model: str, request: Request) -> ModelBody:
    """One model."""
    for body in _models(context(request)):
        if body.id == model:
            return body
    raise UnknownModel(f"No model {model!r}.", param="model")


def _models(ctx: Context) -> list[ModelBody]:
    backbone = ctx.backbone_id
    special = [ModelBody(id=id, created=ctx.started, root=id, answers=_answers(ctx))
               for id in (AUTO, backbone)]  # fmt: skip
    seen = ctx.seen
    aliases = {name: seen.find(name) for name, ref in seen.aliases.items() if seen.stands(ref)}
    shown = ctx.caller.may(ADMIN)
    experts = [
        ModelBody(id=name, created=ctx.started, root=str(entry.path) if shown else None,
                  parent=backbone)
        for name, entry in (*sorted(seen.entries.items()), *sorted(aliases.items()))
    ]  # fmt: skip
    return [*special, *experts]


def _answers(ctx: Context) -> list[str]:
    """The routes that the backbone answers."""
    backbone = ctx.service.engine.backbone
    if not isinstance(backbone, LanguageModel):
        return [*READS]
    return [*READS, WRITES, *([CHATS] if backbone.chats else ())]
