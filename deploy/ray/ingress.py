"""What clients reach: passes requests to replicas, and answers what concerns all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.ray.metrics import merged
from deploy.ray.relay import RayRelay
from server.observability.logs import configure_logs
from server.relay.front import NAME, Front
from server.relay.messages import Asked, Relay, Whole

PROBE, SCRAPE = 2.0, 5.0
"""Seconds that whoever looks whether we are ready will wait, and Prometheus."""


def ingress_app(relay: Relay, *, max_body_bytes: int, client_timeout: float) -> FastAPI:
    """The app in front of a relay."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Alive; of an engine that died Ray makes a new one."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready(request: Request, response: Response) -> dict[str, str]:
        """Ready when one replica is."""
        told = await relay.ask_all(_asked(request), PROBE)
        return _status(response, told)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Those of all replicas, told apart by a label; to whom each of them tells them."""
        told = await relay.ask_all(_asked(request), SCRAPE)
        if not told:
            raise HTTPException(503, "No replica answers now.", {"Retry-After": "5"})
        for whole in told:
            if whole.head.status != 200:
                head = whole.head
                return Response(head.body, head.status, {k.decode(): v.decode()
                                                         for k, v in head.headers})  # fmt: skip
        texts = {whole.replica: whole.head.body.decode() for whole in told}
        return Response(await asyncio.to_thread(merged, texts), media_type=CONTENT_TYPE_LATEST)

    app.mount("/", Front(relay, max_body_bytes=max_body_bytes, client_timeout=client_timeout))
    app.add_middleware(IdLeftToRay)
    return app


class IdLeftToRay:
    """ASGI middleware: Ray puts a request's id on every answer, and ours would be a second one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and take the id from what comes back."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [h for h in message["headers"] if h[0] != NAME]
            await send(message)

        await self._app(scope, receive, told)


def _status(response: Response, told: Sequence[Whole]) -> dict[str, str]:
    ready = any(whole.head.status == 200 for whole in told)
    response.status_code = 200 if ready else 503
    if not ready:
        response.headers["Retry-After"] = "5"
    return {"status": "ready" if ready else "loading"}


def _asked(request: Request) -> Asked:
    path = request.url.path
    return Asked("GET", path, path.encode(), b"", tuple(request.headers.raw))


@serve.ingress()
class Ingress:
    """A deployment's class.

    Args:
        replicas: the handle of those that answer. by_expert: see `RayRelay`.
    """

    def __init__(
        self, replicas: DeploymentHandle[Any], max_body_bytes: int, client_timeout: float,
        log_level: str, by_expert: bool = False,
    ) -> None:  # fmt: skip
        configure_logs(log_level.upper())
        self._replicas, self._by_expert = replicas, by_expert
        self._max_body_bytes, self._client_timeout = max_body_bytes, client_timeout

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Ray asks for the app once the process is there."""
        relay = RayRelay(self._replicas, by_expert=self._by_expert)
        return ingress_app(
            relay, max_body_bytes=self._max_body_bytes, client_timeout=self._client_timeout
        )
