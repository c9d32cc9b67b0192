"""A server with keys of several sorts, and a client for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from server.access.keyfile import KeyStore, write_keys
from server.access.keys import PERMISSIONS, Key, Limits, make_key
from server.app import create_app

SORTS: dict[str, Callable[[], tuple[Key, str]]] = {
    "root": lambda: make_key("root", PERMISSIONS),
    "plain": lambda: make_key("plain", ["infer"]),
    "tracing": lambda: make_key("tracing", ["infer", "route:trace"]),
    "scraper": lambda: make_key("scraper", ["metrics"]),
    "slow": lambda: make_key("slow", ["infer"], limits=Limits(requests_per_minute=2)),
    "frugal": lambda: make_key("frugal", ["infer"], limits=Limits(tokens_per_minute=5)),
    "single": lambda: make_key("single", ["infer"], limits=Limits(concurrent=1)),
}


class Keyed:
    """A client, and the keys of the server it asks."""

    def __init__(self, client: httpx.AsyncClient, tokens: dict[str, str], path: Path) -> None:
        self.client, self.tokens, self.path = client, tokens, path

    def headers(self, sort: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[sort]}"}

    async def __call__(self, sort: str, method: str, path: str, **more) -> httpx.Response:
        more["headers"] = {**self.headers(sort), **more.get("headers", {})}
        return await self.client.request(method, path, **more)


@pytest.fixture
async def keyed(service, adapters, tmp_path) -> AsyncIterator[Keyed]:
    made = {sort: make() for sort, make in SORTS.items()}
    path = tmp_path / "keys.json"
    write_keys(path, [key for key, _ in made.values()])
    app = create_app(service, adapter_roots=[adapters], keys=KeyStore(path))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield Keyed(client, {sort: token for sort, (_, token) in made.items()}, path)
