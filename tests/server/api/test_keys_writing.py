"""What keys allow and count on a server that writes."""

from __future__ import annotations

from contextlib import AsyncExitStack

import httpx
import pytest

from server.access.keyfile import KeyStore, write_keys
from server.access.keys import Limits, make_key
from server.app import create_app
from server.engine.service import EngineService
from tests.server.api.writing_material import CHAT, COMPLETE, chat, chunks, engine_of, ok, prompt

pytestmark = pytest.mark.anyio


@pytest.fixture
async def asking(tmp_path):
    """A client for each key."""
    made = {
        "plain": make_key("plain", ["infer"]),
        "frugal": make_key("frugal", ["infer"], limits=Limits(tokens_per_minute=30)),
    }
    write_keys(tmp_path / "keys.json", [key for key, _ in made.values()])
    service = EngineService(engine_of("causal", tmp_path / "library"), max_queue=100)
    app = create_app(service, keys=KeyStore(tmp_path / "keys.json"))
    async with app.router.lifespan_context(app), AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app),
                    base_url="http://test",
                    headers={"Authorization": f"Bearer {token}"},
                )
            )
            for name, (_, token) in made.items()
        }


async def test_what_was_written_before_the_deadline_counts(asking):
    asked = prompt(max_tokens=200, ignore_eos=True, n=4, routing={"timeout_ms": 100})
    late = await asking["frugal"].post(COMPLETE, json=asked)
    assert late.status_code == 504
    refused = await asking["frugal"].post(COMPLETE, json=prompt(max_tokens=1))
    assert refused.status_code == 429
    assert "30 tokens a minute" in refused.json()["error"]["message"]


@pytest.mark.parametrize(("route", "body"), [(COMPLETE, prompt()), (CHAT, chat())])
async def test_a_selection_says_who_and_not_why(asking, route, body):
    whole = await ok(asking["plain"], route, body)
    *_, last = await chunks(asking["plain"], route, body)
    for routing in (whole["routing"], last["routing"]):
        (routed,) = routing["prompts"] if route == COMPLETE else [routing]
        selection = routed["selection"]
        assert selection["experts"]
        assert (selection["reason"], {e["score"] for e in selection["experts"]}) == ("", {0.0})
