"""A full queue is said before a body is read."""

import asyncio
import threading

import httpx
import pytest

from server.app import create_app
from server.engine.service import EngineService

pytestmark = pytest.mark.anyio


@pytest.fixture
async def held(engine, monkeypatch):
    """A client of a server whose queue takes two samples, and what lets its engine go on."""
    go_on, run = threading.Event(), engine.run

    def wait_and_run(samples):
        assert go_on.wait(30)
        return run(samples)

    monkeypatch.setattr(engine, "run", wait_and_run)
    service = EngineService(engine, max_queue=2, max_batch=1)
    app = create_app(service)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client, service, go_on
        go_on.set()


async def fill(client, service, decision):
    """One sample with the engine and two that wait: the requests, on their way."""
    asked = []
    for waiting in (0, 1, 2):
        asked.append(asyncio.create_task(client.post("/v1/decisions", json=decision)))
        for _ in range(500):
            await asyncio.sleep(0.01)
            if service._queue.waiting == waiting and len(service._jobs) == waiting + 1:
                break
        else:
            pytest.fail(f"{service._queue.waiting} wait where {waiting} should")
    return asked


@pytest.mark.parametrize("path", ["/v1/decisions", "/v1/embeddings", "/v1/route"])
async def test_a_full_queue_refuses_what_nobody_has_read(held, decision, path):
    client, service, go_on = held
    asked = await fill(client, service, decision)
    refused = await client.post(path, content=b"{ this is no JSON")
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.headers["X-Request-Id"]
    assert refused.json()["error"]["code"] == "queue_full"
    go_on.set()
    assert [r.status_code for r in await asyncio.gather(*asked)] == [200, 200, 200]
    assert (await client.post(path, content=b"{ this is no JSON")).status_code == 400


async def test_what_needs_no_queue_is_answered_and_refusals_are_counted(held, decision):
    client, service, go_on = held
    asked = await fill(client, service, decision)
    assert (await client.get("/v1/models")).status_code == 200
    assert (await client.get("/v1/decisions")).status_code == 405
    assert (await client.post("/v1/decisions", json=decision)).status_code == 503
    told = (await client.get("/metrics")).text
    assert 'sailplane_errors_total{code="queue_full",route="/v1/decisions"} 1.0' in told
    assert 'sailplane_requests_total{route="/v1/decisions",status="503"} 1.0' in told
    go_on.set()
    await asyncio.gather(*asked)
