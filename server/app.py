"""The web application: routes, errors, the outermost layer, and the engine's start and stop.

Takes a ready service and plain values; reads no settings and no environment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute

from server.access.gate import Gate
from server.access.keyfile import KeyStore, watching_keys
from server.api import (
    adapters,
    aliases,
    chat,
    completions,
    decisions,
    embeddings,
    experts,
    faults,
    feedback,
    health,
    map,
    models,
    requests,
    route,
    routers,
)
from server.api.bounds import DEFAULT_BOUNDS, Bounds
from server.api.context import Context
from server.api.headers import SecurityHeaders
from server.api.scope import KEYED, LIMITED
from server.api.shedding import Shedding
from server.engine.fitting import Fits
from server.engine.service import EngineService
from server.engine.watching import watching
from server.evidence.writer import RoutingLog
from server.observability.requests import RequestWatch
from server.observability.tracer import Tracer

ROUTERS = (
    decisions, chat, completions, embeddings, route, health, models, experts, aliases, adapters,
    feedback, routers, map, requests,
)  # fmt: skip
ROUTES = [r for module in ROUTERS for r in module.router.routes if isinstance(r, APIRoute)]
DESCRIPTION = "One frozen backbone, a library of experts, and routing that names its reasons."
VERSION = "0.1.0"


def create_app(
    service: EngineService,
    *,
    bounds: Bounds = DEFAULT_BOUNDS,
    adapter_roots: Sequence[Path] = (),
    keys: KeyStore | None = None,
    drain_seconds: float = 30.0,
    scan_seconds: float = 0.0,
    log_text: bool = False,
    routing_log: RoutingLog | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """The server around one engine.

    Args:
        service: started and drained with the app. bounds: of one request. adapter_roots: folders
            that adapters may be loaded from. keys: who may call; None lets everybody do everything.
        drain_seconds: how long a stopping server finishes what it has. scan_seconds: how often to
            look for experts that others changed; 0 is never. log_text: whether log lines may hold
            the text of requests. routing_log: begun and ended with the app. tracer: told of every
            request, and closed with the app.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with (
            _running(service, fits, (routing_log, tracer), drain_seconds),
            watching(service, scan_seconds),
            watching_keys(keys),
        ):
            if routing_log is not None:
                routing_log.start()
            yield

    fits = Fits(
        service.engine, service.change, stopping=lambda: service.draining,
        ended=service.metrics.fitted,
    )  # fmt: skip
    app = routed_app(lifespan)
    app.state.context = Context(
        service, fits, bounds, tuple(adapter_roots), int(time.time()), log_text, routing_log
    )
    app.add_middleware(Shedding, service=service, routes=ROUTES)
    app.add_middleware(Gate, store=keys, routes=ROUTES)
    app.add_middleware(SecurityHeaders)
    # Added last: it is outermost.
    app.add_middleware(RequestWatch, metrics=service.metrics, tracer=tracer)
    service.metrics.describe(VERSION, service.engine)
    return app


@asynccontextmanager
async def _running(
    service: EngineService, fits: Fits, logs: Sequence[RoutingLog | Tracer | None], drain: float
) -> AsyncGenerator[None]:
    """The engine, started and drained; then its fits and logs, closed when nothing more comes."""
    await service.start()
    yield
    await service.drain(drain)
    await asyncio.to_thread(fits.close, drain)
    for log in logs:
        if log is not None:
            await asyncio.to_thread(log.close)


def routed_app(lifespan: object = None) -> FastAPI:
    """The routes and their errors, without an engine: enough for the OpenAPI document."""
    app = FastAPI(
        title="Sailplane",
        description=DESCRIPTION,
        version=VERSION,
        lifespan=lifespan,  # type: ignore[arg-type]
        redoc_url=None,
    )
    for module in ROUTERS:  # the busiest first: routes are tried in order
        app.include_router(module.router, dependencies=() if module is health else (LIMITED, KEYED))
    faults.install(app, ROUTES)
    return app
