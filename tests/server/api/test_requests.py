"""`GET /v1/requests`: the newest of the routing log, for who may see them."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from server.app import create_app
from server.build import build_engine
from server.engine.service import EngineService
from server.evidence.writer import RoutingLog
from server.settings import Settings

pytestmark = pytest.mark.anyio


async def asked(client, times, decision):
    for n in range(times):
        said = await client.post(
            "/v1/decisions", json=decision, headers={"X-Request-Id": f"request-{n}"}
        )
        assert said.status_code == 200, said.text


async def recent(client, count, **said):
    """The list, once the log's thread has seen so many."""
    for _ in range(200):
        response = await client.get("/v1/requests", **said)
        assert response.status_code == 200, response.text
        if len(data := response.json()["data"]) >= count:
            return data
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(data)} of {count} lines came")


@pytest.fixture
async def logging(service, tmp_path):
    app = create_app(service, routing_log=RoutingLog(tmp_path / "routing.jsonl", 1 << 20, 2))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def test_the_newest_come_first_and_no_text_with_them(logging, decision):
    await asked(logging, 3, decision)
    lines = await recent(logging, 3)
    assert [line["request_id"] for line in lines] == ["request-2", "request-1", "request-0"]
    assert lines[0]["selection"]["experts"]
    assert decision["input"] not in str(lines)
    assert len(await recent(logging, 2, params={"limit": 2})) == 2


async def test_feedback_is_no_request(logging, decision):
    await asked(logging, 1, decision)
    await logging.post("/v1/feedback", json={"request_id": "request-0", "correct": True})
    await asked(logging, 2, decision)
    assert len(await recent(logging, 3)) == 3


async def test_without_a_log_there_is_nothing_to_tell(client):
    response = await client.get("/v1/requests")
    assert response.status_code == 409
    assert response.json()["error"]["code"] == "no_routing_log"


@pytest.mark.parametrize("limit", ["0", "201", "many"])
async def test_a_bad_limit_is_an_error(logging, limit):
    response = await logging.get("/v1/requests", params={"limit": limit})
    assert response.status_code == 422
    assert response.json()["error"]["param"] == "limit"


ASKED = {"model": "auto", "input": "A.", "questions": [{"type": "choice", "instructions": "Do"}]}
BARE = {**ASKED, "model": "tiny-random", "questions": [
    {"type": "choice", "choices": [{"value": "a"}, {"value": "b"}]}]}  # fmt: skip


async def test_who_is_limited_sees_the_requests_of_who_may_use_no_more(tagged, tmp_path):
    library = tagged({"p0": ["red", "both"], "p1": ["blue", "both"]})
    engine = build_engine(Settings(backbone="tiny-random", library=library, threads=1))
    log = RoutingLog(tmp_path / "routing.jsonl", 1 << 20, 2)
    app = create_app(EngineService(engine), routing_log=log)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        for tags in ("red", "blue", "both", ""):
            for n, body in enumerate((ASKED, BARE)):  # who names no expert is somebody, too
                headers = {"X-Sailplane-Tags": tags} if tags else {}
                headers["X-Request-Id"] = f"{tags or 'all'}-{n}"
                said = await client.post("/v1/decisions", json=body, headers=headers)
                assert said.status_code == 200, said.text
        assert len(await recent(client, 8)) == 8
        mine = await recent(client, 2, headers={"X-Sailplane-Tags": "red"})
        wider = await recent(client, 4, headers={"X-Sailplane-Tags": "red, both"})
    assert {line["request_id"] for line in mine} == {"red-0", "red-1"}
    assert {line["request_id"].split("-")[0] for line in wider} == {"red", "both"}
