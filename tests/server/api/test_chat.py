"""`/v1/chat/completions`: what becomes of the messages, and how long an answer may be."""

from __future__ import annotations

import pytest

from server.api.chat import DEFAULT_TOKENS
from server.errors import DeadlinePassed
from tests.server.api.writing_material import (
    CHAT,
    COMPLETE,
    TASKS,
    chat,
    ok,
    prompt,
    writing_server,
)

pytestmark = pytest.mark.anyio


async def test_a_chat_is_the_template_continued(causal):
    backbone = causal.service.engine.backbone
    ids = backbone.chat([{"role": "user", "content": "A word."}])
    said = await ok(causal, CHAT, chat(model="sum"))
    same = await ok(causal, COMPLETE, prompt(ids, model="sum"))
    (choice,) = said["choices"]
    assert choice["message"] == {"role": "assistant", "content": same["choices"][0]["text"]}
    assert choice["finish_reason"] == same["choices"][0]["finish_reason"]


async def test_what_the_system_says_is_the_instruction(causal):
    said = await ok(causal, CHAT, chat(("system", TASKS["reverse"]), ("user", "A word.")))
    assert said["routing"]["trace"]["instruction"] == TASKS["reverse"]
    assert said["routing"]["trace"]["writer"] == "caller"
    assert said["routing"]["selection"]["experts"][0]["id"] == "reverse"
    own = {"routing": {"instruction": TASKS["plural"]}}
    said = await ok(causal, CHAT, chat(("system", TASKS["reverse"]), ("user", "A word."), **own))
    assert said["routing"]["trace"]["instruction"] == TASKS["plural"]


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"tools": []}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"max_tokens": 3}, None),
        ({"top_logprobs": 2}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content[0].type"),
    ],
)  # fmt: skip
async def test_chat_refuses_by_name(causal, said, param):
    response = await causal.post(CHAT, json={**chat(), **said})
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == param


async def test_without_a_template_there_is_no_chat(tmp_path):
    async with writing_server("seq2seq", tmp_path) as client:
        response = await client.post(CHAT, json=chat())
        assert response.status_code == 422
        assert COMPLETE in response.json()["error"]["message"]


async def test_an_answer_may_be_sent_back_as_the_client_has_it(causal):
    nulls = {"refusal": None, "annotations": [], "audio": None, "function_call": None,
             "tool_calls": None}  # fmt: skip
    turns = [{"role": "user", "content": "One."}, {"role": "assistant", "content": "1"},
             {"role": "user", "content": "Two."}]  # fmt: skip
    plain = await ok(causal, CHAT, chat(messages=turns))
    turns[1] |= nulls
    sent = chat(messages=turns, tools=None, metadata=None, user="u", store=False)
    assert (await ok(causal, CHAT, sent))["choices"] == plain["choices"]


async def test_each_part_of_a_message_begins_a_line(causal):
    parts = [{"type": "text", "text": "Add:"}, {"type": "text", "text": "1 + 2"}]
    by_parts = await ok(causal, CHAT, chat(messages=[{"role": "user", "content": parts}]))
    whole = await ok(causal, CHAT, chat(("user", "Add:\n1 + 2")))
    assert by_parts["choices"] == whole["choices"]


async def test_a_developer_is_heard_where_the_template_knows_none(causal):
    as_system = await ok(causal, CHAT, chat(("system", TASKS["sum"]), ("user", "1")))
    said = await ok(causal, CHAT, chat(("developer", TASKS["sum"]), ("user", "1")))
    assert said["choices"] == as_system["choices"]


async def test_who_says_no_length_takes_no_whole_context(causal, monkeypatch):
    loop, backbone = causal.service.engine.generation, causal.service.engine.backbone
    wanted, put = [], loop.put

    def noted(request):
        wanted.append(request.prompt.sampling.max_tokens)
        if wanted[-1] == DEFAULT_TOKENS:
            raise DeadlinePassed("enough seen")
        put(request)

    monkeypatch.setattr(loop, "put", noted)
    body = {k: v for k, v in chat().items() if k != "max_completion_tokens"}
    said = await ok(causal, CHAT, body)
    monkeypatch.setattr(backbone, "context", 100 * DEFAULT_TOKENS)
    assert (await causal.post(CHAT, json=body)).status_code == 504
    assert wanted == [256 - said["usage"]["prompt_tokens"], DEFAULT_TOKENS]
