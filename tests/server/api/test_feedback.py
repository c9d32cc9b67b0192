"""The routing log of a real server, over HTTP: what is in it, what is not, and feedback."""

import json

import httpx
import pytest

from server.app import create_app
from server.evidence.reader import LogFiles, read_log
from server.evidence.record import FeedbackLine, RoutedLine
from server.evidence.writer import RoutingLog

pytestmark = pytest.mark.anyio
CANARY = "zanzibar"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "routing.jsonl"


@pytest.fixture
def serve(service, path):
    """`async with serve() as client`: a server that keeps a routing log; leaving drains it."""

    class Serving:
        async def __aenter__(self):
            path.parent.mkdir()
            app = create_app(service, routing_log=RoutingLog(path, 1 << 20, 2))
            self.lifespan = app.router.lifespan_context(app)
            await self.lifespan.__aenter__()
            transport = httpx.ASGITransport(app)
            self.client = httpx.AsyncClient(transport=transport, base_url="http://test")
            return self.client

        async def __aexit__(self, *error):
            await self.client.aclose()
            await self.lifespan.__aexit__(*error)

    return Serving


async def post(client, url, body, status=200, **headers):
    response = await client.post(url, json=body, headers=headers)
    assert response.status_code == status, response.text
    return response


async def test_every_question_is_a_line_as_the_trace_and_the_answer_have_it(
    serve, path, decision, service
):
    decision["questions"].append({"type": "predicate", "instructions": "It will rain."})
    async with serve() as client:
        said = await post(client, "/v1/decisions", decision, **{"X-Request-Id": "mine"})
    body = said.json()
    lines = list(LogFiles(path))
    assert [(line.request_id, line.question) for line in lines] == [("mine", 0), ("mine", 1)]
    (first, second), traces = lines, body["routing"]["questions"]
    for line, trace in zip(lines, traces, strict=True):
        assert line.router == trace["router"] == "sailplane"
        assert [(c.id, c.score) for c in line.candidates] == [
            (c["id"], c["score"]) for c in trace["candidates"]
        ]
        chosen = trace["selection"]["experts"]
        assert [(e.id, e.version) for e in line.selection.experts] == [
            (e["id"], e["version"]) for e in chosen
        ]
        assert line.confidence == pytest.approx(trace["confidence"], abs=1e-6)
        assert (line.alpha, line.calibration) == (trace["alpha"], trace["calibration"])
        assert line.library == str(service.engine.library.generation)
    assert (first.sees, second.sees) == ("all", "instruction")
    shares = [share["probability"] for share in body["answers"][0]["probabilities"]]
    assert first.answer.index == shares.index(max(shares))
    assert first.answer.probability == pytest.approx(max(shares), abs=1e-6)
    assert len(first.values) == 2
    assert first.latency_ms > 0
    assert first.tokens + second.tokens == body["usage"]["total_tokens"]


async def test_route_and_embeddings_are_logged_too(serve, path, decision):
    async with serve() as client:
        await post(client, "/v1/route", decision)
        await post(client, "/v1/embeddings", {"model": "auto", "input": ["one", "two"]})
        await post(client, "/v1/embeddings", {"model": "tiny-random", "input": "one"})
        await post(client, "/v1/decisions", {**decision, "model": "nobody"}, status=404)
    lines = list(LogFiles(path))
    assert [line.router for line in lines] == ["sailplane", "sailplane", "explicit", "explicit"]
    assert all(line.answer is None and line.values == () for line in lines)
    assert lines[3].selection.mode == "base"
    assert len({line.request_id for line in lines}) == 3


@pytest.mark.parametrize("form", ["verdict", "value", "index"])
@pytest.mark.parametrize("right", [True, False])
async def test_feedback_of_every_form_finds_its_answer(serve, path, decision, form, right):
    async with serve() as client:
        said = await post(client, "/v1/decisions", decision, **{"X-Request-Id": "r"})
        values = ["sunny", "rainy"]
        index = values.index(said.json()["answers"][0]["choice"])
        expected = index if right else 1 - index
        verdict = {
            "verdict": {"correct": right}, "value": {"expected": values[expected]},
            "index": {"expected": expected},
        }[form]  # fmt: skip
        first = {"request_id": "r", "correct": not right}
        await post(client, "/v1/feedback", first, 202)
        told = await post(client, "/v1/feedback", {"request_id": "r", **verdict}, 202)
        assert told.json() == {"object": "feedback", "request_id": "r", "question": 0}
        await post(client, "/v1/feedback", {"request_id": "lost", **verdict}, 202)
    joined = read_log(path)
    counts = joined.feedback
    assert (counts.lines, counts.joined, counts.unmatched) == (3, 1, 1)
    assert joined.rows[0].right is right, "the last word counts"


@pytest.mark.parametrize("statement", [True, False])
async def test_a_predicate_is_judged_by_true_and_false(serve, path, decision, statement):
    decision["questions"] = [{"type": "predicate", "instructions": "It is sunny."}]
    async with serve() as client:
        said = await post(client, "/v1/decisions", decision, **{"X-Request-Id": "r"})
        (answer,) = said.json()["answers"]
        body = {"request_id": "r", "expected": statement}
        await post(client, "/v1/feedback", body, 202)
    if answer["type"] == "refusal":
        assert read_log(path).feedback.unanswered == 1
    else:
        assert read_log(path).rows[0].right == ((answer["probability"] >= 0.5) == statement)


async def test_no_text_of_a_request_reaches_the_log(serve, path, decision):
    body = {
        "model": "auto",
        "input": f"{CANARY} input",
        "questions": [
            {
                "type": "choice", "name": f"{CANARY} name", "instructions": f"{CANARY} asked",
                "choices": [
                    {"value": f"{CANARY} one", "description": f"{CANARY} described"},
                    {"value": f"{CANARY} two"},
                ],
            },
            {"type": "score", "levels": [{"label": f"{CANARY} low"}, {"label": f"{CANARY} high"}]},
            {"type": "predicate", "instructions": f"{CANARY} holds."},
        ],
        "routing": {"instruction": f"{CANARY} instruction", "trace": "full"},
        "safety_identifier": CANARY,
    }  # fmt: skip
    async with serve() as client:
        await post(client, "/v1/decisions", body, **{"X-Request-Id": "r"})
        await post(client, "/v1/route", body)
        await post(client, "/v1/embeddings", {"model": "auto", "input": [CANARY], "user": CANARY})
        told = {"request_id": "r", "expected": f"{CANARY} one"}
        await post(client, "/v1/feedback", told, 202)
        await post(client, "/v1/feedback", {**told, CANARY: 1}, 422)
    text = path.read_text()
    assert len(text.splitlines()) == 3 + 3 + 1 + 1
    assert CANARY not in text
    assert read_log(path).feedback.joined == 1


async def test_equal_labels_of_two_requests_differ_in_the_log(serve, path, decision):
    async with serve() as client:
        await post(client, "/v1/decisions", decision)
        await post(client, "/v1/decisions", decision)
    one, two = (set(line.values) for line in LogFiles(path) if isinstance(line, RoutedLine))
    assert len(one) == len(two) == 2
    assert not one & two


async def test_without_a_routing_log_feedback_is_told_how_to_start_one(client):
    refused = await post(client, "/v1/feedback", {"request_id": "r", "correct": True}, 409)
    error = refused.json()["error"]
    assert error["code"] == "no_routing_log"
    assert "--routing-log" in error["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({}, None),
        ({"correct": True, "expected": 1}, None),
        ({"correct": "yes"}, "correct"),
        ({"expected": -1}, "expected"),
        ({"expected": 1.5}, "expected"),
        ({"expected": ""}, "expected"),
        ({"correct": True, "request_id": "a b"}, "request_id"),
        ({"correct": True, "question": -1}, "question"),
        ({"correct": True, "questions": 1}, "questions"),
    ],
)
async def test_feedback_that_says_nothing_clear_is_refused(serve, path, change, param):
    async with serve() as client:
        refused = await post(client, "/v1/feedback", {"request_id": "r", **change}, 422)
    assert refused.json()["error"]["param"] == param
    assert path.read_text() == ""


async def test_feedback_while_the_log_cannot_keep_up_is_told_to_try_again(service, tmp_path):
    log = RoutingLog(tmp_path / "routing.jsonl", 1 << 20, 1, waiting=1)  # never started: it fills
    app = create_app(service, routing_log=log)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await post(client, "/v1/feedback", {"request_id": "r", "correct": True}, 202)
        full = await post(client, "/v1/feedback", {"request_id": "r", "correct": True}, 503)
    assert full.headers["retry-after"]


async def test_a_line_of_feedback_stands_as_it_was_given(serve, path):
    async with serve() as client:
        await post(client, "/v1/feedback", {"request_id": "r", "question": 3, "correct": True}, 202)
    (line,) = LogFiles(path)
    assert isinstance(line, FeedbackLine)
    assert json.loads(path.read_text())["format"] == 1
    assert (line.request_id, line.question, line.correct, line.expected) == ("r", 3, True, None)
