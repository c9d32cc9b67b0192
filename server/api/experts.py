"""`/v1/experts`: the library, live: list, show, add, remove.

An expert is added from a folder under the roots an operator allowed; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from experts.entries import Entry
from experts.library import Library
from experts.manifest import ExpertId, Label, Wording
from routers.catalogue import Catalogue
from routers.fitting.describe import describe
from server.api.context import Context, context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, json_response
from server.api.wire.base import Text, Wire
from server.api.wire.questions import MAX_CHOICES
from server.engine.named import require_expert
from server.engine.run import Engine

MAX_WORDS = 64  # sentences in one list
MAX_EXAMPLES = 256
router = APIRouter(prefix="/v1", tags=["experts"], route_class=LeanRoute)


Sentences = Annotated[tuple[Text, ...], Field(max_length=MAX_WORDS)]


class LabelOption(Wire):
    """A label of the expert's own label set."""

    value: Text
    description: str | None = None
    statements: Sentences = Field(default=(), description="Say that an input has the label.")
    negations: Sentences = Field(default=(), description="Say that it has not.")

    def to_label(self) -> Label:
        """For the manifest; with a description, that is a second wording of the label."""
        worded = (Wording(value=self.value, description=self.description),)
        return Label(
            value=self.value,
            wordings=worded if self.description else (),
            statements=self.statements,
            negations=self.negations,
        )


class AddExpert(Wire):
    """A folder to add: an adapter that PEFT wrote, or an expert of another library.

    What is said of it here goes into its manifest. One sentence of instructions (or a title) makes
    it routable, a few inputs of its task make its routing better; with neither, and no artefacts in
    the folder (`sailplane fit`), it answers by name only. Predicates need a few statements about
    its labels.
    """

    source: Text
    id: ExpertId
    title: Text | None = None
    instructions: Sentences = Field(default=(), description="What its task is, a sentence each.")
    examples: Annotated[tuple[Text, ...], Field(max_length=MAX_EXAMPLES)] = Field(
        default=(), description="Inputs of its task. They are read once and not kept."
    )
    choices: Annotated[tuple[LabelOption, ...], Field(max_length=MAX_CHOICES)] = ()
    tags: Sentences = ()


class ExpertBody(BaseModel):
    """One expert.

    `state` "unrouted": it answers when named, and no router will choose it. `without_effect`: sites
    that the adapter changes and that cannot reach the backbone's output.
    """

    object: Literal["expert"] = "expert"
    id: str
    version: int
    kind: str
    title: str
    instructions: list[str]
    labels: list[str]
    tags: list[str]
    state: Literal["routed", "unrouted"]
    without_effect: list[str]
    backbone: str
    path: str
    provenance: Mapping[str, str | int | float | bool | None]
    scores: Mapping[str, float]


class BadBody(BaseModel):
    """A folder of the library that cannot be served, and why."""

    name: str
    reason: str


class ExpertList(BaseModel):
    """The library."""

    object: Literal["list"] = "list"
    data: list[ExpertBody]
    bad: list[BadBody]


@router.get("/experts", response_model=ExpertList, responses=ERROR_RESPONSES)
async def list_experts(request: Request) -> ExpertList:
    """Every expert, and every entry that cannot be served."""
    engine = context(request).service.engine
    routed = engine.routing.catalogue
    snapshot = engine.library.snapshot
    return ExpertList(
        data=[_body(entry, routed) for entry in snapshot.entries.values()],
        bad=[BadBody(name=name, reason=why) for name, why in sorted(snapshot.bad.items())],
    )


@router.get("/experts/{id}", response_model=ExpertBody, responses=ERROR_RESPONSES)
async def get_expert(id: str, request: Request) -> ExpertBody:
    """One expert."""
    ctx = context(request)
    return _body(_entry(ctx, id), ctx.service.engine.routing.catalogue)


@router.post("/experts", status_code=201, response_model=ExpertBody, responses=ERROR_RESPONSES)
async def create_expert(body: AddExpert, request: Request) -> Response:
    """Add an expert; requests may name it as soon as this returns."""
    ctx = context(request)
    entry = await add_expert(ctx, body)
    response = json_response(_body(entry, ctx.service.engine.routing.catalogue), 201)
    response.headers["Location"] = f"/v1/experts/{entry.id}"
    return response


@router.delete("/experts/{id}", status_code=204, responses=ERROR_RESPONSES)
async def delete_expert(id: str, request: Request) -> Response:
    """Remove an expert; requests that hold it finish with it."""
    await remove_expert(context(request), id)
    return Response(status_code=204)


async def add_expert(ctx: Context, body: AddExpert) -> Entry:
    """Add to the library, off the event loop.

    Raises:
        DuplicateExpert, ForbiddenSource, BadExpert: it was not added.
    """
    return await ctx.service.run_blocking(_add, ctx, body)


async def remove_expert(ctx: Context, id: str) -> None:
    """Remove from the library and from memory, off the event loop.

    Raises:
        UnknownExpert: it is not there.
    """
    await ctx.service.run_blocking(_remove, ctx.service.engine, id)


async def replace_expert(ctx: Context, body: AddExpert) -> Entry:
    """Add to the library in the place of an expert of the same id, if there is one.

    Raises:
        ForbiddenSource, BadExpert: it cannot be served, and what was there stays.
    """
    return await ctx.service.run_blocking(_replace, ctx, body)


def _replace(ctx: Context, body: AddExpert) -> Entry:
    library = ctx.service.engine.library
    if body.id in library.entries:
        with TemporaryDirectory() as scratch:  # could it be added, if its id were free?
            empty = Library.open(
                Path(scratch), fingerprint=library.fingerprint, backbone_id=library.backbone_id
            )
            _copy(ctx, body, empty)
        _remove(ctx.service.engine, body.id)
    return _add(ctx, body)


def _remove(engine: Engine, id: str) -> None:
    """One piece of work: whoever is interrupted in between would leave old tensors in memory."""
    engine.library.remove(id)
    engine.cache.drop(id)
    engine.stacks.drop(id)
    engine.routing.catch_up()


def _add(ctx: Context, body: AddExpert) -> Entry:
    """Add, and have routers see it before the caller hears of it."""
    engine = ctx.service.engine
    entry = _copy(ctx, body, engine.library)
    engine.routing.catch_up()
    return entry


def _copy(ctx: Context, body: AddExpert, library: Library) -> Entry:
    backbone = ctx.service.engine.backbone
    return library.add(
        Path(body.source),
        body.id,
        sites=backbone.sites,
        roots=ctx.adapter_roots,
        title=body.title,
        instructions=body.instructions,
        labels=[choice.to_label() for choice in body.choices],
        tags=body.tags,
        describe=partial(describe, backbone, examples=body.examples),
    )


def _entry(ctx: Context, id: str) -> Entry:
    library = ctx.service.engine.library
    require_expert(library, id)
    return library.get(id)


def _body(entry: Entry, routed: Catalogue) -> ExpertBody:
    manifest = entry.manifest
    return ExpertBody(
        id=manifest.id,
        version=manifest.version,
        kind=manifest.kind,
        title=manifest.title,
        instructions=list(manifest.instructions),
        labels=[label.value for label in manifest.labels],
        tags=list(manifest.tags),
        state="routed" if routed.get(entry.id) else "unrouted",
        without_effect=list(manifest.without_effect),
        backbone=manifest.backbone.id,
        path=str(entry.path),
        provenance=manifest.provenance,
        scores=manifest.scores,
    )
