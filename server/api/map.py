"""`/v1/map`: the experts' instructions on a plane, to look at, and where another sentence lies.

The plane keeps what it can of the distances between embeddings, so its places are for people;
`near` is by the embeddings themselves.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from routers.catalogue import Catalogue
from server.api.context import Context, context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, json_response
from server.api.wire.base import Wire

router = APIRouter(prefix="/v1", tags=["experts"], route_class=LeanRoute)
NEIGHBOURS = 8
LONGEST = 4096
"""Characters of a sentence; embedders read the first few hundred words."""
DIGITS = 5


class MapBody(BaseModel):
    """The instructions that routers can compare.

    `points` are [place in `experts`, which of its instructions, x, y]. `told`: the part of all
    variance that lies along each axis. `generation` names the library's state, `embedder` the model
    that embedded the instructions.
    """

    object: Literal["map"] = "map"
    generation: str
    embedder: str
    told: Annotated[list[float], Field(min_length=2, max_length=2)]
    experts: list[str]
    points: list[Annotated[list[int | float], Field(min_length=4, max_length=4)]]


class PlaceRequest(Wire):
    """A sentence that says what a task is."""

    instruction: Annotated[str, Field(min_length=1, max_length=LONGEST, pattern=r"\S")]
    neighbours: Annotated[int, Field(ge=1, le=100)] = NEIGHBOURS


class NeighbourBody(BaseModel):
    """An instruction of an expert, and the cosine of its embedding with the sentence's."""

    expert: str
    instruction: int
    similarity: float


class PlaceBody(BaseModel):
    """Where a sentence lies on the map of `generation`, and what is near it, best first."""

    object: Literal["place"] = "place"
    generation: str
    x: float
    y: float
    near: list[NeighbourBody]


@router.get("/map", response_model=MapBody, responses=ERROR_RESPONSES)
async def show_map(request: Request) -> Response:
    """All instructions of the experts that the caller may use, on one plane."""
    ctx = context(request)
    return json_response(await ctx.looking.run(_told, ctx))


@router.post("/map", response_model=PlaceBody, responses=ERROR_RESPONSES)
async def place_on_map(body: PlaceRequest, request: Request) -> Response:
    """Where a sentence lies among them. Nothing is routed, and no expert is loaded."""
    ctx = context(request)
    return json_response(await ctx.looking.run(_placed, ctx, body))


def _catalogue(ctx: Context) -> tuple[str, Catalogue]:
    """What the caller may use, as routers see it, and the name of that state."""
    seen = ctx.service.engine.routing.current().within(ctx.scope)
    return seen.snapshot.generation, seen.shortlist.catalogue


def _told(ctx: Context) -> MapBody:
    generation, catalogue = _catalogue(ctx)
    made = catalogue.map
    x, y = made.plane.told_2.tolist()
    points = zip(
        made.owner_P.tolist(), made.number_P.tolist(), *made.place_P2.T.tolist(), strict=True
    )
    return MapBody(
        generation=generation,
        embedder=ctx.service.engine.embedder.id,
        told=[round(x, DIGITS), round(y, DIGITS)],
        experts=list(made.ids),
        points=[[e, i, round(x, DIGITS), round(y, DIGITS)] for e, i, x, y in points],
    )


def _placed(ctx: Context, body: PlaceRequest) -> PlaceBody:
    generation, catalogue = _catalogue(ctx)
    vector_D = ctx.service.engine.embedder.embed([body.instruction])[0].cpu()
    x, y = catalogue.map.place(vector_D)
    near = [
        NeighbourBody(expert=n.expert, instruction=n.instruction,
                      similarity=round(n.similarity, DIGITS))
        for n in catalogue.map.near(vector_D, body.neighbours)
    ]  # fmt: skip
    return PlaceBody(generation=generation, x=round(x, DIGITS), y=round(y, DIGITS), near=near)
