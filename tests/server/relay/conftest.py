"""Two apps, one that reads and one that writes, each with sockets of its own and behind a relay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI

from server.build import build_app
from server.relay.front import Front
from server.relay.local import LocalRelay
from server.settings import Settings
from tests.faults.material import write_library, write_writer
from tests.sockets import client_of

LIMIT = 4 << 20


@contextmanager
def both(folder: Path, backbone: str, library: Path) -> Iterator[SimpleNamespace]:
    """Clients `direct` and `relayed` of one app: what runs in its loop runs once."""
    settings = Settings(backbone=backbone, library=library, threads=1, scan_seconds=0)
    app: FastAPI = build_app(settings)
    front = Front(LocalRelay(app), max_body_bytes=LIMIT, client_timeout=30)

    async def by_host(scope, receive, send):
        relayed = scope["type"] == "http" and (b"x-relayed", b"yes") in scope["headers"]
        await (front if relayed else app)(scope, receive, send)

    with client_of(by_host, lifespan="on") as client:
        yield SimpleNamespace(client=client, app=app, service=app.state.context.service)


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("reading")
    with both(folder, "tiny-random", write_library(folder / "library")) as clients:
        yield clients


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("writing")
    with both(folder, "tiny-causal", write_writer(folder / "library")) as clients:
        yield clients
