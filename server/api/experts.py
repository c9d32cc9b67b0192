"""`/v1/experts`: the library, live: list, show, add, remove.

An expert is added from a folder under the roots an operator allowed; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from experts.entries import Entry
from experts.errors import BadExpert, UnknownExpert
from experts.library import Library
from experts.manifest import ExpertId, Label, Wording
from server.api.context import Context, context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, json_response
from server.api.wire.base import Text, Wire
from server.api.wire.questions import MAX_CHOICES

router = APIRouter(prefix="/v1", tags=["experts"], route_class=LeanRoute)


class LabelOption(Wire):
    """A label of the expert's own label set."""

    value: Text
    description: str | None = None

    def to_label(self) -> Label:
        """For the manifest; with a description, that is a second wording of the label."""
        worded = (Wording(value=self.value, description=self.description),)
        return Label(value=self.value, wordings=worded if self.description else ())


class AddExpert(Wire):
    """A folder to add: an adapter that PEFT wrote, or an expert of another library.

    What is said of it here goes into its manifest. It is routable when the folder brings routing
    artefacts (`sailplane fit`); without them it answers by name.
    """

    source: Text
    id: ExpertId
    title: Text | None = None
    instructions: tuple[Text, ...] = ()
    choices: Annotated[tuple[LabelOption, ...], Field(max_length=MAX_CHOICES)] = ()
    tags: tuple[Text, ...] = ()


class ExpertBody(BaseModel):
    """One expert.

    `routable` False: it answers when named, and no router will choose it. `without_effect`: sites
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
    routable: bool
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
    library = context(request).service.engine.library
    return ExpertList(
        data=[_body(entry) for _, entry in sorted(library.entries.items())],
        bad=[BadBody(name=name, reason=why) for name, why in sorted(library.bad.items())],
    )


@router.get("/experts/{id}", response_model=ExpertBody, responses=ERROR_RESPONSES)
async def get_expert(id: str, request: Request) -> ExpertBody:
    """One expert."""
    return _body(_entry(context(request), id))


@router.post("/experts", status_code=201, response_model=ExpertBody, responses=ERROR_RESPONSES)
async def create_expert(body: AddExpert, request: Request) -> Response:
    """Add an expert; requests may name it as soon as this returns."""
    entry = await add_expert(context(request), body)
    response = json_response(_body(entry), 201)
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
    return await ctx.service.run_blocking(_add, ctx, body, ctx.service.engine.library)


async def remove_expert(ctx: Context, id: str) -> None:
    """Remove from the library and from memory, off the event loop.

    Raises:
        UnknownExpert: it is not there.
    """
    engine = ctx.service.engine
    await ctx.service.run_blocking(engine.library.remove, id)
    engine.cache.drop(id)
    engine.stacks.drop(id)


async def require_servable(ctx: Context, body: AddExpert) -> None:
    """Check that an expert could be added if its id were free, so that replacing it loses nothing.

    Raises:
        ForbiddenSource, BadExpert: it could not.
    """
    library = ctx.service.engine.library

    def check() -> None:
        with TemporaryDirectory() as scratch:
            empty = Library.open(
                Path(scratch), fingerprint=library.fingerprint, backbone_id=library.backbone_id
            )
            _add(ctx, body, empty)

    await ctx.service.run_blocking(check)


def _add(ctx: Context, body: AddExpert, library: Library) -> Entry:
    return library.add(
        Path(body.source),
        body.id,
        sites=ctx.service.engine.backbone.sites,
        roots=ctx.adapter_roots,
        title=body.title,
        instructions=body.instructions,
        labels=[choice.to_label() for choice in body.choices],
        tags=body.tags,
    )


def _entry(ctx: Context, id: str) -> Entry:
    library = ctx.service.engine.library
    if id in library.entries:
        return library.entries[id]
    if id in library.bad:
        raise BadExpert(f"Expert {id!r} cannot be served: {library.bad[id]}")
    raise UnknownExpert(f"No expert {id!r}.")


def _body(entry: Entry) -> ExpertBody:
    manifest = entry.manifest
    return ExpertBody(
        id=manifest.id,
        version=manifest.version,
        kind=manifest.kind,
        title=manifest.title,
        instructions=list(manifest.instructions),
        labels=[label.value for label in manifest.labels],
        tags=list(manifest.tags),
        routable=entry.routable,
        without_effect=list(manifest.without_effect),
        backbone=manifest.backbone.id,
        path=str(entry.path),
        provenance=manifest.provenance,
        scores=manifest.scores,
    )
