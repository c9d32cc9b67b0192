"""Lines that ask for text are answered as over HTTP, beside lines that ask questions."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from server.app import create_app
from server.batch.lines import Line
from server.batch.plan import read_plan
from server.batch.run import run_batch
from server.engine.service import EngineService
from tests.server.api.writing_material import TASKS, engine_of

from .conftest import request

pytestmark = pytest.mark.anyio
CHAT = [{"role": "system", "content": TASKS["sum"]}, {"role": "user", "content": "1 + 2"}]
GREEDY = {"model": "auto", "temperature": 0}
BODIES = {
    "/v1/completions": [
        {**GREEDY, "prompt": "1 + 2", "max_tokens": 5},
        {**GREEDY, "prompt": ["one", "two"], "max_tokens": 3, "n": 2, "logprobs": 1},
        {**GREEDY, "prompt": "x" * 300},
        {"model": "nobody", "prompt": "x"},
        {"model": "auto"},
    ],
    "/v1/chat/completions": [
        {**GREEDY, "messages": CHAT, "max_completion_tokens": 6},
        {**GREEDY, "messages": CHAT, "max_completion_tokens": 6, "routing": {"trace": "none"}},
    ],
    "/v1/embeddings": [{"model": "auto", "input": "1 + 2"}],
}
REQUESTS = [(url, body) for url, bodies in BODIES.items() for body in bodies]


async def answers(engine, path) -> list[dict[str, Any]]:
    replies: list[Any] = []
    await run_batch(EngineService(engine), read_plan(path, 2**16).tasks(), replies.append)
    return [json.loads(reply.written) for reply in replies]


def plain(value: Any) -> Any:
    """Without what is of one request alone, and with numbers that compare up to rounding."""
    if isinstance(value, dict):
        alone = ("milliseconds", "created", "cache", "prompt_tokens_details")
        kept = {k: v for k, v in value.items() if k not in alone}
        return {
            k: plain(v) for k, v in kept.items() if not str(v).startswith(("cmpl-", "chatcmpl-"))
        }
    if isinstance(value, list):
        return [plain(v) for v in value]
    return round(value, 3) if isinstance(value, float) else value


async def test_text_is_that_of_http(write, tmp_path):
    engine = engine_of("causal", tmp_path / "library")
    lines = [request(str(i), url=url, body=body) for i, (url, body) in enumerate(REQUESTS)]
    told = {int(t["custom_id"]): t["response"] for t in await answers(engine, write(*lines))}
    assert sorted(told) == list(range(len(REQUESTS)))
    app = create_app(EngineService(engine))
    over_http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    async with app.router.lifespan_context(app), over_http as client:
        for i, (url, body) in enumerate(REQUESTS):
            found = await client.post(url, json=body)
            assert told[i]["status_code"] == found.status_code, body
            if url != "/v1/embeddings":
                assert plain(told[i]["body"]) == plain(found.json())
    assert [told[i]["status_code"] for i in range(len(REQUESTS))] == [
        200, 200, 400, 404, 422, 200, 200, 200,
    ]  # fmt: skip
    assert engine.generation.budget.used == 0


async def test_a_stream_that_nobody_reads_is_refused(write, tmp_path):
    engine = engine_of("causal", tmp_path / "library")
    bodies = [
        {**GREEDY, "prompt": "x", "stream": True}, {**GREEDY, "messages": CHAT, "stream": True},
    ]  # fmt: skip
    urls = ["/v1/completions", "/v1/chat/completions"]
    lines = [request(url, url=url, body=body) for url, body in zip(urls, bodies, strict=True)]
    for answer in await answers(engine, write(*lines)):
        error = answer["response"]["body"]["error"]
        assert (answer["response"]["status_code"], error["param"]) == (422, "stream")


async def test_a_backbone_that_writes_nothing_says_so(engine, write):
    body = {"model": "auto", "prompt": "x"}
    [answer] = await answers(engine, write(request("a", url="/v1/completions", body=body)))
    assert "writes no text" in answer["response"]["body"]["error"]["message"]


@pytest.mark.parametrize(
    ("body", "length", "samples"),
    [
        ({"prompt": "abc"}, 3, 1),
        ({"prompt": "abc", "n": 4}, 3, 4),
        ({"prompt": ["ab", "c"], "n": 2}, 10, 4),
        ({"prompt": [1, 2, 3]}, 7, 1),
        ({"messages": [{"role": "user", "content": "x"}]}, 31, 1),
        ({"messages": [], "n": "many"}, 2, 1),
        ({"input": ["a", "b"]}, 9, 2),
        ({}, 4, 1),
    ],
)  # fmt: skip
async def test_how_much_a_line_asks_for(body, length, samples):
    line = Line(custom_id="a", method="POST", url="/v1/completions", body=body)
    assert (line.length, line.samples) == (length, samples)
