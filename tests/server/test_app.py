"""The app as a whole: probes, the client that leaves, the OpenAI client, the committed document."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from server.openapi import document
from tests.sockets import on_socket

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_openapi_document_is_the_committed_one():
    assert OPENAPI.read_text() == document(), "run: python -m server.openapi > docs/openapi.json"


@pytest.mark.anyio
async def test_ready_follows_the_engine_and_health_does_not(client, service):
    assert (await client.get("/ready")).json() == {"status": "ready"}
    await service.drain()
    response = await client.get("/ready")
    assert (response.status_code, response.json()) == (503, {"status": "draining"})
    assert (await client.get("/health")).status_code == 200
    refused = await client.post("/v1/embeddings", json={"model": "tiny-random", "input": "x"})
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "draining"
    assert refused.headers["retry-after"]


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_a_probe_may_ask_by_head(client, service, path):
    assert (await client.head(path)).status_code == 200
    service.retire()
    assert (await client.head(path)).status_code == (await client.get(path)).status_code


def test_a_probe_by_head_gets_no_body(address):
    with httpx.Client(base_url=f"http://{address}") as client:
        answers = [client.head("/health"), client.get("/health")]
    assert [len(answer.content) for answer in answers] == [0, 15]
    assert answers[0].headers["content-length"] == "15"


@pytest.mark.anyio
async def test_metrics_count_what_happened(client, decision):
    await client.post("/v1/decisions", json=decision)
    await client.post("/v1/decisions", json={**decision, "questions": []})
    lines = (await client.get("/metrics")).text.splitlines()
    for line in (
        'sailplane_requests_total{route="/v1/decisions",status="200"} 1.0',
        'sailplane_errors_total{code="invalid_value",route="/v1/decisions"} 1.0',
        "sailplane_batch_samples_count 1.0",
        "sailplane_queue_samples 0.0",
        'sailplane_stage_seconds_count{stage="forward"} 1.0',
        "sailplane_routing_top_score_count 1.0",
        "sailplane_routing_confidence_count 1.0",
    ):
        assert line in lines


@pytest.fixture
def address(app) -> Iterator[str]:
    """The app on a real socket."""
    with on_socket(app) as served:
        yield served.address


@pytest.fixture
def sdk(address) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_openai_client_decides(sdk):
    decision = sdk.decisions.create(
        model="auto",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Dark clouds."}]}],
        questions=[
            {"type": "choice", "name": "sky", "instructions": "Say what the weather is like.",
             "choices": [{"value": "sunny"}, {"value": True, "description": "rain"}]},
            {"type": "score", "instructions": "How wet?",
             "levels": [{"label": "dry"}, {"label": "damp"}, {"label": "wet"}]},
            {"type": "predicate", "instructions": "It rains."},
        ],
    )  # fmt: skip
    choice, score, predicate = decision.answers
    assert choice.type == "choice"
    assert choice.name == "sky"
    assert choice.choice in ("sunny", True)
    assert sum(p.probability for p in choice.probabilities) == pytest.approx(1)
    assert score.type == "score"
    assert 0 <= score.score <= 2
    assert predicate.type in ("predicate", "refusal")
    assert decision.usage.total_tokens > 0
    assert len(decision.routing["questions"]) == 3


def test_the_openai_client_embeds_and_lists(sdk, tiny):
    said = sdk.embeddings.create(model="tiny-random", input=["Clear skies."])
    assert said.data[0].embedding == pytest.approx(
        tiny.embed(["Clear skies."])[0].tolist(), abs=1e-5
    )
    assert [model.id for model in sdk.models.list()] == ["auto", "tiny-random", "mood", "weather"]
    assert sdk.models.retrieve("mood").owned_by == "sailplane"


def test_the_openai_client_understands_our_errors(sdk):
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.embeddings.create(model="nobody", input="x")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.UnprocessableEntityError) as bad:
        sdk.decisions.create(model="auto", input="x", questions=[])
    assert bad.value.param == "questions"


def test_a_client_that_leaves_takes_its_samples_along(address, service, engine, monkeypatch):
    run, ran, hold = engine.run, [], threading.Event()

    def slow(samples):
        ran.extend(s.input for s in samples)
        assert hold.wait(10)
        return run(samples)

    monkeypatch.setattr(engine, "run", slow)
    stays = connect(address, "first")
    wait_until(lambda: ran == ["first"])
    with connect(address, "leaves"):
        wait_until(lambda: service._queue.waiting == 1)
    wait_until(lambda: service._queue.waiting == 0)
    hold.set()
    assert stays.recv(100).startswith(b"HTTP/1.1 200")
    stays.close()
    assert ran == ["first"]


def connect(address: str, text: str) -> socket.socket:
    """Send an embeddings request and do not wait for the answer."""
    host, port = address.split(":")
    body = json.dumps({"model": "tiny-random", "input": text})
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall((head + body).encode())
    return connection


def wait_until(condition) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.anyio
async def test_a_request_cancelled_from_outside_stays_cancelled(client, decision, engine, service):
    task = asyncio.create_task(client.post("/v1/decisions", json=decision))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.ready
