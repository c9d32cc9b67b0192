"""A batch on a real engine: it says what the server says, and stops when the engine does."""

import asyncio
import json
from typing import Any

import pytest

from server.batch.plan import Plan, read_plan
from server.batch.run import Gate, Tally, run_batch, windows
from server.engine.service import EngineService
from server.errors import BatchFileError, Unavailable

from .conftest import QUESTION, request

pytestmark = pytest.mark.anyio
LIMIT = 64 * 2**10


def body(**more: Any) -> dict[str, Any]:
    return {"model": "auto", "input": "Dark clouds.", "questions": [QUESTION], **more}


BODIES = {
    "/v1/decisions": [
        body(),
        body(input="A long way to go. " * 8),
        body(model="mood"),
        body(model="wether"),
        body(model="broken"),
        body(questions=[]),
        body(questions=[QUESTION, {"type": "predicate", "instructions": "It rains."}, QUESTION]),
        body(input="wind " * 200),
        body(input="wind " * 200, routing={"truncate": True}),
        body(routing={"trace": "none"}),
        body(routing={"experts": {"mood": 0.5, "weather": 0.5}}),
        {"model": "auto"},
    ],
    "/v1/route": [body(), body(routing={"trace": "none"})],
    "/v1/embeddings": [
        {"model": "auto", "input": ["Dark clouds.", "A dry day."], "encoding_format": "base64"},
        {"model": "weather", "input": "Dark clouds."},
        {"model": "weather", "input": [1, 2]},
    ],
}
REQUESTS = [(url, body) for url, bodies in BODIES.items() for body in bodies]


async def answers(service: EngineService, plan: Plan) -> list[dict[str, Any]]:
    replies = []
    await run_batch(service, plan.tasks(), replies.append)
    return [json.loads(reply.written) for reply in replies]


def plain(value: Any) -> Any:
    """Without what is told of time, and with numbers that compare up to rounding."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != "milliseconds"}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return round(value, 3) if isinstance(value, float) else value


async def test_a_line_is_answered_as_over_http(client, engine, write):
    lines = [request(str(i), url=url, body=body) for i, (url, body) in enumerate(REQUESTS)]
    plan = read_plan(write(*lines), LIMIT)
    told = await answers(EngineService(engine, max_batch=4), plan)
    assert sorted(t["custom_id"] for t in told) == sorted(line["custom_id"] for line in lines)
    statuses = set()
    for answer in told:
        url, body = REQUESTS[int(answer["custom_id"])]
        over_http = await client.post(url, json=body)
        assert answer["error"] is None
        assert answer["response"]["status_code"] == over_http.status_code, body
        if url != "/v1/embeddings" or over_http.status_code != 200:
            assert plain(answer["response"]["body"]) == plain(over_http.json())
        statuses.add(over_http.status_code)
    assert statuses == {200, 404, 422}


async def test_vectors_are_those_of_http(client, engine, write):
    body = BODIES["/v1/embeddings"][1]
    plan = read_plan(write(request("a", url="/v1/embeddings", body=body)), LIMIT)
    [answer] = await answers(EngineService(engine), plan)
    over_http = (await client.post("/v1/embeddings", json=body)).json()
    vector = answer["response"]["body"]["data"][0]["embedding"]
    assert vector == pytest.approx(over_http["data"][0]["embedding"], abs=1e-5)


async def test_a_number_that_json_does_not_know_is_refused_as_over_http(client, engine, write):
    text = json.dumps(request("a", body=body(routing={"timeout_ms": float("nan")})))
    [answer] = await answers(EngineService(engine), read_plan(write(text), LIMIT))
    sent = json.dumps(body(routing={"timeout_ms": float("nan")}))
    over_http = await client.post("/v1/decisions", content=sent)
    assert answer["response"]["status_code"] == over_http.status_code == 422
    assert answer["response"]["body"] == over_http.json()


async def test_deadlines_have_no_effect(engine, write):
    late = body(routing={"timeout_ms": 1e-6})
    plan = read_plan(write(request("a", body=late)), LIMIT)
    [answer] = await answers(EngineService(engine), plan)
    assert answer["response"]["status_code"] == 200


async def test_a_bad_line_costs_itself_alone(engine, write):
    plan = read_plan(write(request("a"), "{", request("b"), request("a")), LIMIT)
    told = {t["id"].split("_")[2]: t for t in await answers(EngineService(engine), plan)}
    assert [told[n]["response"]["status_code"] for n in "1234"] == [200, 400, 200, 400]
    assert told["2"]["custom_id"] is None
    assert told["2"]["error"]["code"] == "invalid_line"
    assert told["2"]["error"]["message"].startswith("Line 2 is no request")
    assert told["2"]["response"]["body"]["error"]["message"] == told["2"]["error"]["message"]
    assert told["4"]["custom_id"] == "a"
    assert told["4"]["error"]["code"] == "repeated_custom_id"


async def test_more_lines_than_are_let_in_at_a_time_are_all_answered_in_full_batches(engine, write):
    lines = [request(str(i), f"It is day {i}. " * (i % 7 + 1)) for i in range(60)]
    service = EngineService(engine, max_batch=4)
    told = await answers(service, read_plan(write(*lines), LIMIT))
    assert len({t["custom_id"] for t in told}) == 60
    assert service.metrics.registry.get_sample_value("sailplane_batch_samples_count") <= 20
    assert service.alive is False


async def test_an_engine_that_failed_ends_the_run_and_answers_nothing_falsely(engine, write):
    service = EngineService(engine, max_batch=4)
    replies = []

    def put(reply):
        replies.append(reply)
        service.draining = True  # as when its thread has ended: nothing new is let in

    plan = read_plan(write(*(request(str(i)) for i in range(60))), LIMIT)
    with pytest.raises(Unavailable):
        await run_batch(service, plan.tasks(), put)
    assert {reply.status for reply in replies} == {200}
    assert len(replies) < 60


async def test_a_fault_of_ours_is_an_answer_with_500(engine, write, monkeypatch):
    service = EngineService(engine)
    run = engine.run

    def fails(samples):
        if any("fatal" in s.input for s in samples):
            raise ZeroDivisionError
        return run(samples)

    monkeypatch.setattr(engine, "run", fails)
    plan = read_plan(write(request("a"), request("b", "a fatal text")), LIMIT)
    told = {t["custom_id"]: t["response"] for t in await answers(service, plan)}
    assert told["a"]["status_code"] == 200
    assert told["b"]["status_code"] == 500
    assert told["b"]["body"]["error"]["code"] == "internal_error"


async def test_what_cannot_be_written_ends_the_run(engine, write):
    def put(reply):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await run_batch(EngineService(engine), read_plan(write(request("a")), LIMIT).tasks(), put)


async def test_an_input_that_changes_ends_the_run(engine, write):
    plan = read_plan(write(request("a"), request("b")), LIMIT)
    write(request("a"), request("c"))
    with pytest.raises(BatchFileError, match="line 2 changed"):
        await answers(EngineService(engine), plan)


async def test_the_gate_holds_lines_back_while_it_is_full():
    gate = Gate(4)
    await gate.enter(3)
    await gate.enter(9)
    late = asyncio.create_task(gate.enter(1))
    for samples in (0, 3):
        gate.leave(samples)
        await asyncio.sleep(0.001)
        assert not late.done()
    gate.leave(9)
    await late
    assert gate.inside == 1


async def test_a_window_is_sorted_by_the_length_of_inputs(write):
    texts = [request(str(n), "x" * n) for n in (5, 1, 9, 2, 8, 3)]
    tasks = read_plan(write(*texts), LIMIT).tasks()
    sizes = [[t.line.length for t in window] for window in windows(tasks, 4)]
    assert sizes == [[1, 2, 5, 9], [3, 8]]


def test_a_tally_counts_lines_samples_and_codes(engine, write):
    tally = Tally()
    plan = read_plan(write(request("a"), "{", request("b", body=body(model="x"))), LIMIT)
    asyncio.run(run_batch(EngineService(engine), plan.tasks(), tally.add))
    assert (tally.answered, tally.samples) == (1, 1)
    assert tally.failed == {"invalid_line": 1, "model_not_found": 1}
