"""`/v1/decisions` and `/v1/route` on a real engine, over HTTP in one process."""

import json
from typing import Any

import pytest

pytestmark = pytest.mark.anyio
URL = "/v1/decisions"


async def ask(client, body: dict[str, Any], url: str = URL) -> dict[str, Any]:
    response = await client.post(url, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_choice_is_answered_and_the_trace_says_who_answered(client, decision):
    said = await ask(client, decision)
    (answer,) = said["answers"]
    shares = {share["value"]: share["probability"] for share in answer["probabilities"]}
    assert list(shares) == ["sunny", "rainy"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-9)
    assert answer["choice"] == max(shares, key=shares.get)
    assert answer["confidence"] == shares[answer["choice"]]
    assert answer["name"] == "sky"
    assert said["model"] == "auto"
    (trace,) = said["routing"]["questions"]
    assert trace["instruction"] == "Say what the weather is like."
    assert trace["writer"] == "caller"
    assert {c["id"] for c in trace["candidates"]} <= {"weather", "mood"}
    assert "tokens" not in trace
    assert said["usage"]["total_tokens"] == said["usage"]["input_tokens"] > 0


async def test_every_sort_of_question_in_the_order_asked(client, decision):
    decision["model"] = "mood"
    decision["questions"] = [
        {"type": "score", "levels": [{"label": "low"}, {"label": "mid"}, {"label": "high"}]},
        {"type": "choice", "choices": [{"value": True}, {"value": "False"}]},
        {"type": "choice", "name": "own labels"},
    ]
    score, typed, own = (await ask(client, decision))["answers"]
    assert [p["value"] for p in score["probabilities"]] == [0, 1, 2]
    assert [p["label"] for p in score["probabilities"]] == ["low", "mid", "high"]
    expected = sum(p["value"] * p["probability"] for p in score["probabilities"])
    assert score["score"] == pytest.approx(expected)
    assert [p["value"] for p in typed["probabilities"]] == [True, "False"]
    assert [p["value"] for p in own["probabilities"]] == ["happy", "sad"]


async def test_choices_that_read_the_same_are_refused(client, decision):
    decision["questions"] = [{"type": "choice", "choices": [{"value": True}, {"value": "True"}]}]
    (refusal,) = (await ask(client, decision))["answers"]
    assert refusal["type"] == "refusal"
    assert "choices[0] and choices[1]" in refusal["reason"]


async def test_a_question_that_cannot_be_judged_is_refused_and_the_others_are_answered(
    client, decision
):
    decision["model"] = "mood"  # which has labels and no statements to judge by
    decision["questions"].append({"type": "predicate", "instructions": "The sky is blue."})
    choice, refusal = (await ask(client, decision))["answers"]
    assert choice["type"] == "choice"
    assert refusal["type"] == "refusal"
    assert "statement" in refusal["reason"]


async def test_routing_serves_all_questions_and_overrides_change_one(client, decision):
    decision["questions"] *= 3
    decision["routing"] = {
        "experts": {"mood": 1.0},
        "questions": {"1": {"experts": {"weather": 0.5}, "trace": "full"}, "2": {"trace": "none"}},
    }
    first, second, third = (await ask(client, decision))["routing"]["questions"]
    assert [e["id"] for e in first["selection"]["experts"]] == ["mood"]
    assert [e["id"] for e in second["selection"]["experts"]] == ["weather"]
    assert second["selection"]["strength"] == pytest.approx(0.5)
    assert second["milliseconds"]["forward"] > 0
    assert third is None


async def test_overrides_may_be_a_list_as_long_as_the_questions(client, decision):
    decision["questions"] *= 2
    decision["routing"] = {"questions": [None, {"router": "base"}]}
    _, second = (await ask(client, decision))["routing"]["questions"]
    assert second["selection"]["mode"] == "base"


async def test_a_selection_sent_back_gives_the_same_answer(client, decision):
    first = await ask(client, decision)
    decision["routing"] = {"selection": first["routing"]["questions"][0]["selection"]}
    again = await ask(client, decision)
    before, after = (a["answers"][0]["probabilities"] for a in (first, again))
    assert [p["probability"] for p in after] == pytest.approx([p["probability"] for p in before])


async def test_messages_and_calls_are_read_as_one_text(client, decision):
    said = 'user: What is it?\ncall: sky({})\noutput: rain\nuser: {"mm":3}'
    text = {**decision, "input": said}
    decision["input"] = [
        {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}]},
        {"role": "user", "content": [{"type": "input_json", "data": {"mm": 3}}]},
    ]
    call = {"type": "function_call", "call_id": "1", "name": "sky", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "1", "output": "rain"}
    decision["input"][1:1] = [call, output]
    assert (await ask(client, decision))["answers"] == (await ask(client, text))["answers"]


async def test_one_message_is_the_same_as_its_text(client, decision):
    message = {**decision, "input": [{"role": "user", "content": decision["input"]}]}
    assert (await ask(client, message))["answers"] == (await ask(client, decision))["answers"]


async def test_fields_that_cannot_change_an_answer_are_accepted(client, decision):
    plain = await ask(client, decision)
    decision |= {
        "prompt_cache_key": "k", "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
        "safety_identifier": "user-1",
    }  # fmt: skip
    assert (await ask(client, decision))["answers"] == plain["answers"]


async def test_route_explains_and_answers_nothing(client, decision):
    answered = await ask(client, decision)
    explained = await ask(client, decision, "/v1/route")
    assert "answers" not in explained
    ours, theirs = (s["routing"]["questions"][0]["selection"] for s in (explained, answered))
    assert ours == theirs
    decision["routing"] = {"trace": "none"}
    refused = await client.post("/v1/route", json=decision)
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == "routing.trace"


async def test_truncation_is_said(client, decision):
    decision["input"] = "wind " * 100
    decision["routing"] = {"truncate": True}
    (trace,) = (await ask(client, decision))["routing"]["questions"]
    assert trace["truncated"] == [{"part": "input", "tokens_sent": 502, "tokens_kept": 128}]


async def test_no_text_of_a_request_reaches_log_or_metrics(client, decision, caplog):
    caplog.set_level("INFO", logger="sailplane")
    decision["input"] = "a very private remark"
    decision["routing"] = {"instruction": "another private remark"}
    await client.post(
        URL, json=decision,
        headers={"traceparent": "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"},
    )  # fmt: skip
    metrics = (await client.get("/metrics")).text
    assert "private" not in caplog.text + metrics
    (line,) = [json.loads(r.message) for r in caplog.records if r.name == "sailplane.access"]
    assert line["route"] == URL
    assert line["status"] == 200
    assert line["samples"] == 1
    assert line["trace_id"] == "0123456789abcdef0123456789abcdef"
