"""What a browser sends for a page of another site is refused; other clients pass."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from server.access.sites import from_another_site

pytestmark = pytest.mark.anyio
ELSEWHERE = [
    {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "http://test:9000"},
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"origin": "http://["},
]
HERE = [
    {},
    {"sec-fetch-site": "same-origin", "origin": "https://behind.a.proxy"},
    {"sec-fetch-site": "none"},
    {"origin": "http://test"},
    {"origin": "https://models.example", "x-forwarded-host": "models.example"},
    {"origin": "https://models.example", "x-forwarded-host": "models.example, inner"},
]


@pytest.mark.parametrize("said", ELSEWHERE)
async def test_a_page_of_another_site_changes_and_asks_nothing(client, said):
    for method, path in (("POST", "/v1/unload_lora_adapter"), ("DELETE", "/v1/experts/mood"),
                         ("POST", "/v1/decisions"), ("PUT", "/v1/aliases/x")):  # fmt: skip
        body = '{"lora_name": "mood"}'
        headers = {**said, "content-type": "text/plain"}
        response = await client.request(method, path, content=body, headers=headers)
        assert response.status_code == 403, (method, path)
        assert response.json()["error"]["code"] == "not_allowed"
    assert (await client.get("/v1/experts/mood")).status_code == 200


@pytest.mark.parametrize("said", ELSEWHERE)
async def test_looking_is_free_and_is_read_by_no_other_site(client, said):
    response = await client.get("/v1/models", headers=said)
    assert response.status_code == 200
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("said", HERE)
async def test_other_clients_and_our_own_page_pass(client, decision, said):
    assert not from_another_site(Headers({**said, "host": "test"}))
    response = await client.post("/v1/decisions", json=decision, headers=said)
    assert response.status_code == 200


@pytest.mark.parametrize("said", ELSEWHERE)
async def test_a_websocket_for_another_site_is_closed(app, said):
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(k.encode(), v.encode()) for k, v in {**said, "host": "test"}.items()]
    await app({"type": "websocket", "path": "/console/", "headers": headers}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
