"""The console asks as anybody does: same app, same gate, same errors."""

from __future__ import annotations

import pytest

from server.access.keyfile import KeyStore, write_keys
from server.access.keys import make_key
from server.app import create_app
from server.console.api import Api, Refused
from server.relay.local import LocalRelay
from tests.server.api.writing_material import writing_server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(app):
    async with app.router.lifespan_context(app):
        yield Api(LocalRelay(app))


async def test_what_is_read_and_asked_is_what_a_client_gets(api, client_of, decision):
    client = client_of(api)
    assert await api.get("/v1/models") == (await client.get("/v1/models")).json()
    said = await api.post("/v1/decisions", decision)
    assert said["answers"] == (await client.post("/v1/decisions", json=decision)).json()["answers"]
    assert "sailplane_requests_total" in await api.text("/metrics")


@pytest.fixture
def client_of(app):
    import httpx

    return lambda _api: httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    )


async def test_a_refusal_is_the_servers_own_sentence(api, decision):
    with pytest.raises(Refused, match="nobody") as caught:
        await api.post("/v1/decisions", {**decision, "model": "nobody"})
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert caught.value.param == "model"


async def test_what_is_removed_is_gone(api):
    await api.delete("/v1/experts/mood")
    assert [e["id"] for e in (await api.get("/v1/experts"))["data"]] == ["weather"]
    with pytest.raises(Refused):
        await api.delete("/v1/experts/mood")


async def test_a_query_is_sent(api):
    with pytest.raises(Refused, match="limit"):
        await api.get("/v1/requests", limit=0)


async def test_a_key_is_sent_and_without_it_nothing_is_told(service, tmp_path):
    key, token = make_key("me", ["infer"])
    write_keys(tmp_path / "keys.json", [key])
    app = create_app(service, keys=KeyStore(tmp_path / "keys.json"))
    async with app.router.lifespan_context(app):
        relay = LocalRelay(app)
        assert await Api(relay, token).get("/v1/models")
        for wrong in ("", "sp-wrong"):
            with pytest.raises(Refused) as caught:
                await Api(relay, wrong).get("/v1/models")
            assert caught.value.status == 401
        with pytest.raises(Refused, match="permission") as caught:
            await Api(relay, token).text("/metrics")
        assert caught.value.status == 403


async def test_events_come_one_by_one(tmp_path):
    body = {"model": "auto", "prompt": "1 + 2 = ", "stream": True, "max_tokens": 8,
            "ignore_eos": True, "temperature": 0}  # fmt: skip
    async with writing_server("causal", tmp_path) as client:
        api = Api(LocalRelay(client._transport.app))
        events = [e async for e in api.stream("/v1/completions", body)]
        whole = await api.post("/v1/completions", {**body, "stream": False})
        with pytest.raises(Refused, match="nobody"):
            async for _ in api.stream("/v1/completions", {**body, "model": "nobody"}):
                pass
    text = "".join(c["text"] for e in events for c in e["choices"])
    assert len(events) > 2
    assert text == whole["choices"][0]["text"]
    assert events[-1]["routing"]["prompts"]


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"error": 1}', b'{"error": {}}'])
def test_an_answer_that_is_no_error_of_ours_is_told_by_its_status(body):
    assert str(Refused.of(502, body)) == "The server answered with status 502."
