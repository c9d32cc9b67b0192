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
    models,
    route,
)
from server.api.context import Context
from server.api.scope import LIMITED
from server.engine.fitting import Fits
from server.engine.service import EngineService
from server.engine.watching import watching
from server.evidence.writer import RoutingLog
from server.observability.requests import RequestWatch
from server.observability.tracer import Tracer

ROUTERS = (
    decisions, chat, completions, embeddings, route, health, models, experts, aliases, adapters,
    feedback,
)  # fmt: skip
DESCRIPTION = "One frozen backbone, a library of experts, and routing that names its reasons."
VERSION = "0.1.0"


def create_app(
    service: EngineService,
    *,
    adapter_roots: Sequence[Path] = (),
    max_body_bytes: int = 2**20,
    timeout_ms: float | None = None,
    write_timeout_ms: float | None = None,
    drain_seconds: float = 30.0,
    scan_seconds: float = 0.0,
    log_text: bool = False,
    routing_log: RoutingLog | None = None,
    tracer: Tracer | None = None,
) -> FastAPI:
    """The server around one engine.

    Args:
        service: started and drained with the app. adapter_roots: folders that adapters may be
            loaded from. timeout_ms: the deadline of a request that names none; write_timeout_ms:
            of one that writes text.
        drain_seconds: how long a stopping server finishes what it has. scan_seconds: how often to
            look for experts that others changed; 0 is never. log_text: whether log
            lines may hold the text of requests. routing_log: begun and ended with the app. tracer:
            told of every request, and closed with the app.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await service.start()
        if routing_log is not None:
            routing_log.start()
        async with watching(service, scan_seconds):
            yield
        await service.drain(drain_seconds)
        await asyncio.to_thread(fits.close, drain_seconds)
        for part in (routing_log, tracer):
            if part is not None:
                await asyncio.to_thread(part.close)

    fits = Fits(
        service.engine, service.change, stopping=lambda: service.draining,
        ended=service.metrics.fitted,
    )  # fmt: skip
    app = routed_app(lifespan)
    app.state.context = Context(
        service, fits, tuple(adapter_roots), max_body_bytes, timeout_ms, int(time.time()), log_text,
        routing_log, write_timeout_ms=write_timeout_ms,
    )  # fmt: skip
    app.add_middleware(RequestWatch, metrics=service.metrics, tracer=tracer)
    service.metrics.describe(VERSION, service.engine)
    return app


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
        app.include_router(module.router, dependencies=() if module is health else (LIMITED,))
    faults.install(app)
    return app
