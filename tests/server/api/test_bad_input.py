"""Section by section what may be wrong with a request: its status, its field, its code.

After every case the server must still answer.
"""

import asyncio
import gzip
import json
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.anyio
DECISIONS, EMBEDDINGS = "/v1/decisions", "/v1/embeddings"
CHOICES = [{"value": "a"}, {"value": "b"}]
IMAGE = {"type": "input_image", "image_url": "https://example.org/a.png"}


@pytest.fixture(autouse=True)
async def _still_serving(client, decision):
    good = json.dumps(decision)
    yield
    assert (await client.post(DECISIONS, content=good)).status_code == 200


def error_of(response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["x-request-id"]
    (error,) = response.json().values()
    assert set(error) - {"details"} == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def choice(**changed: object) -> list[dict[str, object]]:
    return [{"type": "choice", "instructions": "Which?", "choices": CHOICES, **changed}]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": "  \n"}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": ""}]}, "input"),
        ({"input": 3}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "call_id": "9", "output": "x"}]}, "input"),
        ({"questions": []}, "questions"),
        ({"questions": choice() * 401}, "questions"),
        ({"questions": choice(choices=CHOICES[:1])}, "questions[0].choices"),
        ({"questions": choice() + choice(choices=CHOICES * 2)}, "questions[1].choices"),
        ({"questions": choice(choices=[{"value": str(i)} for i in range(256)])},
         "questions[0].choices"),
        ({"questions": choice(choices=[{"value": "a"}, {"value": 1}])},
         "questions[0].choices[1].value"),
        ({"questions": choice(choices=[{"value": ""}, {"value": "a"}])},
         "questions[0].choices[0].value"),
        ({"questions": choice(weight=1)}, "questions[0].weight"),
        ({"questions": choice(type="ranking")}, "questions[0]"),
        ({"questions": [{"type": "predicate"}]}, "questions[0].instructions"),
        ({"questions": [{"type": "predicate", "instructions": " "}]}, "questions[0].instructions"),
        ({"questions": [{"type": "score", "levels": [{"label": "one"}]}]}, "questions[0].levels"),
        ({"routing": {"experts": {"mood": float("nan")}}}, "routing.experts.mood"),
        ({"routing": {"experts": {"mood": float("inf")}}}, "routing.experts.mood"),
        ({"routing": {"experts": {"mood": -1}}}, "routing.experts.mood"),
        ({"routing": {"experts": {"mood": 0}}}, "routing"),
        ({"routing": {"experts": {}}}, "routing.experts"),
        ({"routing": {"top_k": -1}}, "routing.top_k"),
        ({"routing": {"top_k": 0}}, "routing.top_k"),
        ({"routing": {"router": "no such"}}, "routing.router"),
        ({"routing": {"router": "dam", "experts": {"mood": 1}}}, "routing"),
        ({"routing": {"timeout_ms": 0}}, "routing.timeout_ms"),
        ({"routing": {"questions": {"1": {}}}}, "routing.questions.1"),
        ({"routing": {"questions": [{}, {}]}}, "routing.questions"),
        ({"routing": {"sees": "input"}}, "routing.sees"),
        ({"model": "mood", "routing": {"router": "dam"}}, "routing.router"),
        ({"routing": {"experts": {"mood": 1e39}}}, "routing.experts.mood"),
        ({"routing": {"experts": {"mood": 600, "weather": 600}}}, "routing"),
        ({"routing": {"experts": {"mood": 1}, "deny": ["mood"]}}, "routing"),
        ({"routing": {"experts": {"mood": 1, "weather": 1}, "top_k": 1}}, "routing"),
        ({"routing": {"experts": {"mood": 1}, "instruction": "Guess."}}, "routing"),
        ({"routing": {"router": "base", "top_k": 2}}, "routing.top_k"),
        ({"routing": {"router": "base", "instruction": "Guess."}}, "routing.instruction"),
        ({"routing": {"questions": {"0": {"router": "no such"}}}}, "routing.questions[0].router"),
        ({"model": "mood", "routing": {"instruction": "Guess."}}, "routing.instruction"),
        ({"routing": {"deny": ["x"] * 1025}}, "routing.deny"),
        ({"input": [{}] * 1025}, "input"),
        ({"questions": choice(choices=[{"value": "a", "description": "x"},
                                       {"value": "a", "description": "y"}])},
         "questions[0].choices"),
        ({"temperature": 0}, "temperature"),
    ],
)  # fmt: skip
async def test_a_bad_value_is_422_with_the_path_of_its_field(client, decision, change, param):
    body = json.dumps({**decision, **change})  # not `json=`: httpx itself refuses NaN
    error = error_of(await client.post(DECISIONS, content=body), 422)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": [{"role": "user", "content": [IMAGE]}]}, "input[0].content[0]"),
        ({"questions": choice(instructions=[IMAGE])}, "questions[0].instructions[0]"),
    ],
)
async def test_images_are_422_with_their_own_code(client, decision, change, param):
    error = error_of(await client.post(DECISIONS, json={**decision, **change}), 422)
    assert (error["param"], error["code"]) == (param, "unsupported_input")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 10_000])
async def test_what_is_not_json_is_400(client, body):
    assert error_of(await client.post(DECISIONS, content=body), 400)["code"] == "malformed_json"


async def test_a_json_part_has_bounds(client, decision):
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"d": deep}
    decision["input"] = [{"role": "user", "content": [{"type": "input_json", "data": deep}]}]
    error = error_of(await client.post(DECISIONS, json=decision), 422)
    assert error["param"] == "input[0].content[0].data"


@pytest.mark.parametrize("url", [DECISIONS, EMBEDDINGS, "/v1/route"])
async def test_unknown_models_are_404(client, decision, url):
    body = {"model": "nobody", "input": "x"} if url == EMBEDDINGS else {**decision, "model": "no"}
    error = error_of(await client.post(url, json=body), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


@pytest.mark.parametrize(
    "routing", [{"experts": {"nobody": 1}}, {"allow": ["nobody"]}, {"deny": ["nobody"]}]
)
async def test_unknown_experts_are_404(client, decision, routing):
    error = error_of(await client.post(DECISIONS, json={**decision, "routing": routing}), 404)
    assert error["code"] == "expert_not_found"
    assert error_of(await client.get("/v1/experts/nobody"), 404)["code"] == "expert_not_found"
    assert error_of(await client.delete("/v1/experts/nobody"), 404)["code"] == "expert_not_found"


async def test_a_bad_expert_is_named_with_its_reason_and_never_served(client, decision):
    error = error_of(await client.post(DECISIONS, json={**decision, "model": "broken"}), 422)
    assert error["code"] == "bad_expert"
    assert "adapter_model.safetensors" in error["message"]


async def test_an_input_that_is_too_long_is_422_with_both_lengths(client, decision):
    decision["input"] = "x" * 200
    error = error_of(await client.post(DECISIONS, json=decision), 422)
    assert error["code"] == "input_too_long"
    assert error["details"] == {"part": "input", "length": 202, "limit": 128}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_over_the_limit_is_413(client, stream):
    async def chunks():
        for _ in range(80):
            yield b"x" * 1024

    content = chunks() if stream else b"x" * 80 * 1024
    assert error_of(await client.post(DECISIONS, content=content), 413)["code"] == "body_too_large"


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd, gzip"])
async def test_a_compressed_body_is_415_and_told_so(client, decision, encoding):
    content = gzip.compress(json.dumps(decision).encode())
    headers = {"Content-Encoding": encoding}
    error = error_of(await client.post(DECISIONS, content=content, headers=headers), 415)
    assert error["code"] == "unsupported_encoding"
    assert "Content-Encoding" in error["message"]


async def test_a_body_that_says_it_is_plain_is_read(client, decision):
    headers = {"Content-Encoding": "Identity"}
    response = await client.post(DECISIONS, json=decision, headers=headers)
    assert response.status_code == 200


@pytest.fixture
def hold(engine, monkeypatch) -> Iterator[threading.Event]:
    """The engine answers once this is set."""
    run, event = engine.run, threading.Event()
    monkeypatch.setattr(engine, "run", lambda samples: event.wait(30) and run(samples))
    yield event
    event.set()


async def test_a_deadline_that_passes_is_504(client, decision, hold):
    late = {**decision, "routing": {"timeout_ms": 20}}
    response = await client.post(DECISIONS, json=late)
    hold.set()
    assert error_of(response, 504)["code"] == "deadline_passed"


async def test_a_full_queue_is_503_with_retry_after(client, decision, service, hold):
    service._queue.limit = 1
    sent = [asyncio.create_task(client.post(DECISIONS, json=decision)) for _ in range(6)]
    done, _ = await asyncio.wait(sent, timeout=0.5)
    hold.set()
    responses = await asyncio.gather(*sent)
    assert len(done) >= 4  # one may be in the engine and one in the queue
    for response in (task.result() for task in done):
        assert error_of(response, 503)["code"] == "queue_full"
        assert int(response.headers["retry-after"]) >= 1
    assert [r.status_code for r in responses].count(200) == 6 - len(done)


async def test_a_bug_is_500_that_tells_nothing_and_is_logged(
    client, decision, engine, monkeypatch, caplog
):
    def fail(_samples: object) -> None:
        raise ZeroDivisionError("secret detail")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", fail)
        response = await client.post(DECISIONS, json=decision, headers={"X-Request-Id": "mine"})
    assert error_of(response, 500)["code"] == "internal_error"
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "mine"
    assert "request mine failed" in caplog.text
    assert "secret detail" in caplog.text


async def test_unknown_routes_and_methods_have_the_same_shape(client):
    assert error_of(await client.get("/v1/nothing"), 404)["code"] == "route_not_found"
    response = await client.get(DECISIONS)
    assert error_of(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": [[1, 2]]}, "input"),
        ({"input": [1, 2]}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", " "]}, "input[1]"),
        ({"dimensions": 8}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"routing": {"questions": {}}}, "routing.questions"),
    ],
)
async def test_bad_embedding_requests(client, change, param):
    body = {"model": "auto", "input": "text", **change}
    assert error_of(await client.post(EMBEDDINGS, json=body), 422)["param"] == param


class TestExperts:
    """What may be wrong with an expert that is being added."""

    async def test_a_taken_id_is_409(self, client, adapters):
        body = {"source": str(adapters / "flight"), "id": "mood"}
        assert error_of(await client.post("/v1/experts", json=body), 409)["code"] == "expert_exists"

    @pytest.mark.parametrize("path", ["/etc", "{root}/../library/mood", "relative"])
    async def test_a_path_outside_the_roots_is_403(self, client, adapters, path):
        body = {"source": path.format(root=adapters), "id": "new"}
        error = error_of(await client.post("/v1/experts", json=body), 403)
        assert error["code"] == "source_forbidden"

    async def test_a_link_that_leaves_the_roots_is_403(self, client, adapters, library):
        (adapters / "link").symlink_to(library / "mood")
        body = {"lora_name": "new", "lora_path": str(adapters / "link")}
        error = error_of(await client.post("/v1/load_lora_adapter", json=body), 403)
        assert error["code"] == "source_forbidden"

    async def test_damaged_tensors_are_422(self, client, adapters):
        (adapters / "flight" / "adapter_model.safetensors").write_bytes(b"\x00" * 100)
        body = {"source": str(adapters / "flight"), "id": "new"}
        error = error_of(await client.post("/v1/experts", json=body), 422)
        assert error["code"] == "corrupt_expert"

    async def test_pickles_are_422(self, client, adapters):
        folder = adapters / "pickled"
        folder.mkdir()
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))
        body = {"source": str(folder), "id": "new"}
        assert "pickle" in error_of(await client.post("/v1/experts", json=body), 422)["message"]

    async def test_tensors_that_fit_no_site_are_422_with_what_matched(self, client, bare_adapter):
        folder = bare_adapter(rename=True)
        body = {"source": str(folder), "id": "new"}
        error = error_of(await client.post("/v1/experts", json=body), 422)
        assert error["code"] == "mismatched_expert"
        assert error["details"]["unmatched"]

    async def test_a_bad_id_is_422(self, client, adapters):
        body = {"source": str(adapters / "flight"), "id": "../up"}
        assert error_of(await client.post("/v1/experts", json=body), 422)["param"] == "id"
