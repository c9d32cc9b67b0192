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
    models,
    route,
)
from server.api.context import Context
from server.api.headers import SecurityHeaders
from server.api.scope import KEYED, LIMITED
from server.api.shedding import Shedding
from server.engine.fitting import Fits
from server.engine.service import EngineService
from server.engine.watching import watching
from server.evidence.writer import RoutingLog
from server.observability.requests import RequestWatch

ROUTERS = (
    decisions, chat, completions, embeddings, route, health, models, experts, aliases, adapters,
    feedback,
)  # fmt: skip
ROUTES = [r for module in ROUTERS for r in module.router.routes if isinstance(r, APIRoute)]
DESCRIPTION = "One frozen backbone, a library of experts, and routing that names its reasons."
VERSION = "0.1.0"


def create_app(
    service: EngineService,
    *,
    adapter_roots: Sequence[Path] = (),
    max_body_bytes: int = 2**20,
    timeout_ms: float | None = None,
    write_timeout_ms: float | None = None,
    client_timeout: float | None = None,
    drain_seconds: float = 30.0,
    scan_seconds: float = 0.0,
    log_text: bool = False,
    routing_log: RoutingLog | None = None,
    keys: KeyStore | None = None,
    token_limit: int | None = None,
) -> FastAPI:
    """The server around one engine.

    Args:
        service: started and drained with the app. adapter_roots: folders that adapters may be
            loaded from. timeout_ms: the deadline of a request that names none; write_timeout_ms:
            of one that writes text. client_timeout: seconds in which a body must arrive.
        drain_seconds: how long a stopping server finishes what it has. scan_seconds: how often to
            look for experts that others changed; 0 is never. log_text: whether log
            lines may hold the text of requests. routing_log: begun and ended with the app.
        keys: who may call; None lets everybody do everything. token_limit: tokens that one request
            may have written and read for it.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with (
            _running(service, fits, routing_log, drain_seconds),
            watching(service, scan_seconds),
            watching_keys(keys),
        ):
            yield

    fits = Fits(
        service.engine, service.change, stopping=lambda: service.draining,
        ended=service.metrics.fitted,
    )  # fmt: skip
    app = routed_app(lifespan)
    app.state.context = Context(
        service, fits, tuple(adapter_roots), max_body_bytes, timeout_ms, int(time.time()), log_text,
        routing_log, write_timeout_ms=write_timeout_ms, token_limit=token_limit,
        client_timeout=client_timeout,
    )  # fmt: skip
    app.add_middleware(Shedding, service=service, routes=ROUTES)
    app.add_middleware(Gate, store=keys, routes=ROUTES)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestWatch, metrics=service.metrics)  # added last: it is outermost
    backbone, embedder = service.engine.backbone, service.engine.embedder
    service.metrics.describe(
        VERSION, backbone.id, embedder.id, backbone.device.type, str(backbone.dtype).split(".")[-1]
    )
    return app


@asynccontextmanager
async def _running(
    service: EngineService, fits: Fits, routing_log: RoutingLog | None, drain_seconds: float
) -> AsyncGenerator[None]:
    """The engine and the routing log, begun together and ended in order."""
    await service.start()
    if routing_log is not None:
        routing_log.start()
    yield
    await service.drain(drain_seconds)
    await asyncio.to_thread(fits.close, drain_seconds)
    if routing_log is not None:
        await asyncio.to_thread(routing_log.close)


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
