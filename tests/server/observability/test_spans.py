"""Spans as a collector receives them: of requests, of their stages, and of nothing said in them."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from server.app import VERSION, create_app
from server.engine.service import EngineService
from server.observability.tracer import open_tracer
from server.settings import SettingsError
from tests.server.api.writing_material import chat, engine_of
from tests.server.observability.collector import Collector, collecting, values

pytestmark = pytest.mark.anyio
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ("queue", "instruction", "embed", "select", "load", "embed", "forward")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@asynccontextmanager
async def served(service, endpoint):
    """A client of an app whose spans have all been sent when the context ends."""
    app = create_app(service, tracer=open_tracer(endpoint, VERSION))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


async def test_a_request_is_a_span_and_each_stage_one_inside(collector, service, decision):
    before = time.time_ns()
    async with served(service, collector.address) as client:
        body = {**decision, "routing": {"trace": "full"}}
        answered = await client.post("/v1/decisions", json=body)
        assert answered.status_code == 200
        await client.get("/ready")
        await client.get("/metrics")
    (root,) = collector.roots()
    assert (root.name, root.parent_span_id) == ("POST /v1/decisions", b"")
    assert before < root.start_time_unix_nano < root.end_time_unix_nano < time.time_ns()
    stages = collector.children(root)
    assert tuple(span.name for span in stages) == STAGES
    ends = [root.start_time_unix_nano]
    for span in stages:  # one after the other, inside the request
        assert ends[-1] <= span.start_time_unix_nano <= span.end_time_unix_nano
        ends.append(span.end_time_unix_nano)
    assert ends[-1] <= root.end_time_unix_nano
    told = answered.json()["routing"]["questions"][0]
    spent = dict.fromkeys(STAGES, 0.0)
    for span in stages:
        spent[span.name] += (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    for name, milliseconds in told["milliseconds"].items():
        assert spent[name] == pytest.approx(milliseconds, abs=0.005)
    assert collector.resources == [{"service.name": "sailplane", "service.version": VERSION}]


async def test_attributes_say_what_was_decided_and_nothing_of_the_text(
    collector, service, decision
):
    async with served(service, collector.address) as client:
        answered = await client.post(
            "/v1/decisions", json=decision, headers={"X-Request-Id": "the-one"}
        )
    (root,) = collector.roots()
    told = values(root)
    (question,) = answered.json()["routing"]["questions"]
    assert told["http.route"] == "/v1/decisions"
    assert (told["http.request.method"], told["http.response.status_code"]) == ("POST", 200)
    assert told["sailplane.request_id"] == "the-one"
    assert told["sailplane.samples"] == 1
    assert told["sailplane.tokens"] > 0
    selection = question["selection"]
    assert told["sailplane.routing.modes"] == [selection["mode"]]
    assert told["sailplane.routing.experts"] == [e["id"] for e in selection["experts"]]
    assert 0 <= told["sailplane.queue_seconds"] < 1
    sent = b"".join(said.SerializeToString() for said in collector.requests).decode("latin-1")
    for text in (decision["input"], "what the weather is like", "sunny", "water falls"):
        assert text not in sent


async def test_the_callers_trace_goes_on(collector, service, decision, caplog):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    async with served(service, collector.address) as client:
        with caplog.at_level(logging.INFO, "sailplane.access"):
            await client.post("/v1/decisions", json=decision, headers=headers)
            await client.post("/v1/decisions", json=decision)
    inside, own = collector.roots()
    assert (inside.trace_id.hex(), inside.parent_span_id.hex()) == (TRACE, PARENT)
    assert {span.trace_id for span in collector.children(inside)} == {inside.trace_id}
    assert own.trace_id != inside.trace_id
    logged = [json.loads(record.message)["trace_id"] for record in caplog.records]
    assert logged == [TRACE, own.trace_id.hex()]


async def test_what_the_caller_does_not_sample_is_not_sent(collector, service, decision, caplog):
    async with served(service, collector.address) as client:
        with caplog.at_level(logging.INFO, "sailplane.access"):
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
            await client.post("/v1/decisions", json=decision, headers=headers)
    assert collector.spans == []
    assert [json.loads(record.message)["trace_id"] for record in caplog.records] == [TRACE]


@pytest.mark.parametrize("said", ["00-xyz-1-01", f"00-{'0' * 32}-{PARENT}-01", "é", ""])
async def test_a_traceparent_that_is_none_begins_a_new_trace(collector, service, decision, said):
    async with served(service, collector.address) as client:
        headers = {"traceparent": said.encode()}
        assert (await client.post("/v1/decisions", json=decision, headers=headers)).is_success
    (root,) = collector.roots()
    assert root.parent_span_id == b""


async def test_errors_carry_their_code_and_ours_are_marked(collector, service, decision):
    async with served(service, collector.address) as client:
        await client.post("/v1/decisions", json={**decision, "questions": []})
        await service.drain()
        await client.post("/v1/decisions", json=decision)
    theirs, ours = collector.roots()
    assert (values(theirs)["error.type"], theirs.status.code) == (
        "invalid_value", Status.STATUS_CODE_UNSET
    )  # fmt: skip
    assert (values(ours)["error.type"], ours.status.code) == ("draining", Status.STATUS_CODE_ERROR)


async def test_one_batch_is_in_the_spans_of_all_its_requests(collector, service, decision):
    async with served(service, collector.address) as client:
        asked = [client.post("/v1/decisions", json=decision) for _ in range(6)]
        assert all(answer.is_success for answer in await asyncio.gather(*asked))
    forward = [
        (span.end_time_unix_nano - span.start_time_unix_nano)
        for root in collector.roots()
        for span in collector.children(root)
        if span.name == "forward"
    ]
    assert len(forward) == 6
    assert len({nanoseconds // 1000 for nanoseconds in forward}) < 6, "no batch was shared"


@pytest.mark.parametrize("stream", [False, True])
async def test_writing_is_a_stage_and_its_tokens_are_counted(collector, tmp_path, stream):
    service = EngineService(engine_of("causal", tmp_path / "library"))
    async with served(service, collector.address) as client:
        body = chat(("user", "A word."), ignore_eos=True, stream=stream)
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    (root,) = collector.roots()
    stages = collector.children(root)
    assert stages[-1].name == "generate"
    assert stages[-1].end_time_unix_nano <= root.end_time_unix_nano
    assert values(root)["sailplane.generated_tokens"] == 12


async def test_the_usual_variables_of_opentelemetry_are_heeded(
    collector, service, decision, monkeypatch
):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with served(service, collector.address) as client:
        await client.post("/v1/decisions", json=decision)
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        await client.post("/v1/decisions", json=decision, headers=headers)
    assert len(collector.roots()) == 1
    assert collector.resources[0]["service.name"] == "mine"


async def test_no_collector_costs_no_answer_and_the_server_ends(service, decision):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}"
    async with served(service, nobody) as client:
        assert (await client.post("/v1/decisions", json=decision)).is_success
        leaving = time.monotonic()
    assert time.monotonic() - leaving < 20


@pytest.mark.slow  # it imports torch once more
def test_off_it_imports_nothing():
    code = (
        "import sys, server.app; from server.observability.tracer import open_tracer;"
        "assert open_tracer(None, '1') is None;"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "server.observability.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"otlp_endpoint = .*sailplane\[otel\]"):
        open_tracer("http://127.0.0.1:4318", "1")
