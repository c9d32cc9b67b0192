"""`/v1/experts`: the library, live: list, show, add, remove, look again.

An expert is added from a folder under the roots an operator allowed; nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fastapi import APIRouter, Request, Response

from experts.aliases import require_removable
from experts.artefacts import Artefacts
from experts.entries import Entry
from experts.manifest import Manifest
from experts.snapshot import Snapshot
from experts.training.data import Example
from experts.weights import ExpertWeights
from routers.fitting.describe import describe
from server.access.rules import ADMIN, METRICS
from server.api.context import Context, context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, json_response
from server.api.wire.examples import MAX_EXAMPLES, inputs_of, labelled
from server.api.wire.experts import (
    AddExpert,
    BadBody,
    ExpertBody,
    ExpertList,
    FitBody,
    ReplaceExpert,
    RollBack,
    ScanBody,
    UseBody,
)
from server.engine.fitting import Job
from server.engine.named import require_expert
from server.observability.audit import about

router = APIRouter(prefix="/v1", tags=["experts"], route_class=LeanRoute)


@router.get("/experts", response_model=ExpertList, responses=ERROR_RESPONSES)
async def list_experts(request: Request) -> ExpertList:
    """Every expert, and every entry that cannot be served."""
    ctx = context(request)
    seen = ctx.seen
    return ExpertList(
        generation=seen.generation,
        data=[_body(entry, seen, ctx) for entry in seen.entries.values()],
        bad=[BadBody(name=name, reason=why) for name, why in sorted(seen.bad.items())],
    )


@router.post("/experts/scan", response_model=ScanBody, responses=ERROR_RESPONSES)
async def scan_experts(request: Request) -> ScanBody:
    """Look at the library's folder now, for what others changed there.

    The server looks by itself every `scan_seconds`. This also reads again what is bad, although
    nothing in its folder changed.
    """
    ctx = context(request)
    before = ctx.seen
    await ctx.service.run_blocking(ctx.service.engine.scan, again=True)
    return ScanBody(**asdict(ctx.seen.since(before)))


@router.get("/experts/{id}", response_model=ExpertBody, responses=ERROR_RESPONSES)
async def get_expert(id: str, request: Request) -> ExpertBody:
    """One expert."""
    ctx = context(request)
    return _body(require_expert(ctx.seen, id), ctx.seen, ctx)


@router.post("/experts", status_code=201, response_model=ExpertBody, responses=ERROR_RESPONSES)
async def create_expert(body: AddExpert, request: Request) -> Response:
    """Add an expert; requests may name it as soon as this returns."""
    ctx = context(request)
    about(request.scope, id=body.id, source=body.source)
    entry = await add_expert(ctx, body)
    response = json_response(_body(entry, ctx.seen, ctx), 201)
    response.headers["Location"] = f"/v1/experts/{entry.id}"
    return response


@router.put("/experts/{id}", response_model=ExpertBody, responses=ERROR_RESPONSES)
async def replace_expert(body: ReplaceExpert, request: Request, id: str) -> Response:
    """Put a new version in the place of an expert, in one step, or add it.

    Requests that hold the former version finish with it. It is kept: `id@version` names it.
    """
    ctx = context(request)
    about(request.scope, source=body.source)
    given = AddExpert(id=id, **body.model_dump())
    entry = await add_expert(ctx, given, replace=True)
    return json_response(_body(entry, ctx.seen, ctx))


@router.post("/experts/{id}/rollback", response_model=ExpertBody, responses=ERROR_RESPONSES)
async def roll_back_expert(body: RollBack, request: Request, id: str) -> Response:
    """Put a kept version in the place of the current one, which is kept in turn."""
    ctx = context(request)
    about(request.scope, version=body.version)
    entry = await ctx.service.run_blocking(_roll_back, ctx, id, body.version)
    return json_response(_body(entry, ctx.seen, ctx))


@router.delete("/experts/{id}", status_code=204, responses=ERROR_RESPONSES)
async def delete_expert(id: str, request: Request) -> Response:
    """Remove an expert; requests that hold it finish with it."""
    await remove_expert(context(request), id)
    return Response(status_code=204)


async def add_expert(ctx: Context, body: AddExpert, *, replace: bool = False) -> Entry:
    """Add to the library, off the event loop; or take the place of an expert, in one step.

    Raises:
        DuplicateExpert, ForbiddenSource, BadExpert: the library is as before.
        RequestError: an example has a label that the expert has not; likewise.
        QueueFull: too many fits wait; likewise.
    """
    return await ctx.service.run_blocking(_add, ctx, body, replace)


async def remove_expert(ctx: Context, id: str) -> None:
    """Remove from the library and from memory, off the event loop.

    Raises:
        UnknownExpert: it is not there.
    """
    await ctx.service.run_blocking(_remove, ctx, id)


def _remove(ctx: Context, id: str) -> None:
    """One piece of work: whoever is interrupted in between would leave old tensors in memory."""
    engine = ctx.service.engine
    require_removable(engine.library.root, engine.library.snapshot, id, ctx.scope)
    if id in ctx.seen.entries:  # before its files go: a fit that is stopped has not failed
        ctx.fits.cancel(id)
    with engine.changing():
        engine.library.remove(id, ctx.scope)


def _add(ctx: Context, body: AddExpert, replace: bool) -> Entry:
    """Add, and have routers see it before the caller hears of it; fit it when its turn comes."""
    engine, inputs = ctx.service.engine, inputs_of(body.examples)
    examples: list[Example] = []
    if any(not isinstance(e, str) for e in body.examples):
        ctx.fits.require_room()

    def described(expert: ExpertWeights, manifest: Manifest, brought: Artefacts) -> Artefacts:
        examples.extend(labelled(body.examples, [label.value for label in manifest.labels]))
        first = inputs[:MAX_EXAMPLES]
        metric = engine.routing.metric
        return describe(engine.backbone, engine.embedder, expert, manifest, brought, first, metric)

    with engine.changing():
        entry = engine.library.add(
            Path(body.source),
            body.id,
            sites=engine.backbone.sites,
            roots=ctx.adapter_roots,
            title=body.title,
            instructions=body.instructions,
            labels=[choice.to_label() for choice in body.choices],
            tags=body.tags,
            describe=described,
            replace=replace,
            scope=ctx.scope,
        )
    ctx.fits.cancel(entry.id)
    if examples:
        ctx.fits.put(Job(entry, inputs, examples))
    return entry


def _roll_back(ctx: Context, id: str, version: int) -> Entry:
    engine = ctx.service.engine
    with engine.changing():
        entry = engine.library.roll_back(id, version, ctx.scope)
    ctx.fits.cancel(id)
    return entry


def _body(entry: Entry, seen: Snapshot, ctx: Context) -> ExpertBody:
    """What a caller is told of an expert: of its versions, aliases and tags those that it sees."""
    manifest, routed = entry.manifest, ctx.service.engine.routing.catalogue.get(entry.id)
    versions, fit = seen.versions(entry.id), ctx.fits.of(entry.id)
    return ExpertBody(
        id=manifest.id,
        version=manifest.version,
        versions=[e.manifest.version for e in versions],
        aliases=seen.named.get(entry.id, {}),
        kind=manifest.kind,
        title=manifest.title,
        instructions=list(manifest.instructions),
        labels=[label.value for label in manifest.labels],
        tags=ctx.scope.shown(manifest.tags),
        state="routed" if routed else "unrouted",
        gates=routed is not None and "gate" in routed.artefacts.vectors,
        fit=FitBody(**asdict(fit)) if fit else None,
        without_effect=list(manifest.without_effect),
        backbone=manifest.backbone.id,
        path=str(entry.path) if ctx.caller.may(ADMIN) else None,
        samples=list(manifest.samples),
        bytes=sum(manifest.sizes.values()) or None,
        use=_use(entry, ctx) if ctx.caller.may(METRICS) else None,
        provenance=ctx.scope.provenance(manifest),
        scores=manifest.scores,
    )


def _use(entry: Entry, ctx: Context) -> UseBody:
    used = ctx.service.metrics.usage.of(entry.ref)
    where = ctx.service.engine.tiers.where(entry.ref)
    return UseBody(tier=where, times=used.times, last=used.last)
