"""Writing over a real socket: the OpenAI client, `curl -N`, a client that leaves, and the end."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import openai
import pytest
import uvicorn

from server.api.bounds import Bounds
from server.app import create_app
from server.engine.service import EngineService
from tests.server.api.writing_material import TASKS, engine_of
from tests.sockets import on_socket


@dataclass
class Running:
    """A server on a socket."""

    address: str
    service: EngineService
    server: uvicorn.Server

    @property
    def loop(self):
        return self.service.engine.generation

    def wait_until(self, done, seconds: float = 10.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, "it does not come to pass"
            time.sleep(0.002)


@pytest.fixture
def running(tmp_path) -> Iterator[Running]:
    service = EngineService(engine_of("causal", tmp_path / "library"))
    app = create_app(service, bounds=Bounds(write_timeout_ms=60_000), drain_seconds=5)
    with on_socket(app) as served:
        yield Running(served.address, service, served.server)


@pytest.fixture
def sdk(running) -> Iterator[openai.OpenAI]:
    url = f"http://{running.address}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


LONG = {"max_tokens": 200, "temperature": 0, "extra_body": {"ignore_eos": True}}


def test_the_openai_client_chats_and_streams(sdk):
    messages = [{"role": "system", "content": TASKS["sum"]}, {"role": "user", "content": "1 + 2"}]
    said = {"model": "auto", "messages": messages, "temperature": 0, "max_completion_tokens": 9}
    whole = sdk.chat.completions.create(**said)
    assert whole.model_extra["routing"]["selection"]["experts"][0]["id"] == "sum"
    chunks = list(
        sdk.chat.completions.create(**said, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].model_extra["routing"] == whole.model_extra["routing"]
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_the_openai_client_completes_with_every_field_we_know(sdk):
    said = {"model": "plural", "prompt": ["one", "two"], "max_tokens": 6, "n": 2, "seed": 1,
            "temperature": 0.7, "top_p": 0.9, "logprobs": 1, "presence_penalty": 0.1,
            "frequency_penalty": 0.1, "logit_bias": {"7": -5}, "stop": ["~"], "user": "me",
            "extra_body": {"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1,
                           "min_tokens": 2, "stop_token_ids": [9]}}  # fmt: skip
    whole = sdk.completions.create(**said)
    assert len(whole.choices) == 4
    streamed = [""] * 4
    for chunk in sdk.completions.create(**said, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert streamed == [choice.text for choice in whole.choices]


def test_the_openai_client_understands_our_errors(sdk):
    with pytest.raises(openai.BadRequestError) as long:
        sdk.completions.create(model="auto", prompt="x" * 300, max_tokens=5)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.UnprocessableEntityError) as hot:
        sdk.completions.create(model="auto", prompt="x", temperature=1.99, top_p=2)
    assert hot.value.param == "top_p"


def test_curl_shows_tokens_as_they_come(running):
    body = {"model": "sum", "prompt": "1 + 2", "max_tokens": 30, "stream": True, "temperature": 0}
    curl = subprocess.run(
        ["curl", "-sN", f"http://{running.address}/v1/completions", "-d", json.dumps(body)],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    lines = [line for line in curl.stdout.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["choices"] for line in lines[:-1])


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_rows_and_experts(running, stream):
    """The loop is slowed down, so that a step is long enough to see."""
    loop, step = running.loop, running.loop.step
    steps = [0]

    def slowly() -> None:
        time.sleep(0.02)
        steps[0] += 1
        step()

    loop.step = slowly
    body = json.dumps({"model": "sum", "prompt": "1 + 2", "max_tokens": 200, "n": 3,
                       "ignore_eos": True, "stream": stream}).encode()  # fmt: skip
    host, port = running.address.split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        running.wait_until(lambda: len(loop.batch.rows) == 3 and steps[0] > 6)
    running.wait_until(lambda: not loop.busy)
    assert steps[0] < 60, "it was written to its end"
    assert loop.budget.used == 0
    assert loop.batch.refs == []
    running.wait_until(lambda: not any(
        slot.pins for slot in running.service.engine.tiers.device._slots.values()
    ))  # fmt: skip
    assert running.service._admitted == 0
    running.wait_until(
        lambda: counted(running, 'requests_total{route="/v1/completions",status="499"}')
    )


def counted(running: Running, name: str) -> bool:
    text = httpx.get(f"http://{running.address}/metrics").text
    return f"sailplane_{name} 1.0" in text.splitlines()


def test_a_drain_finishes_what_is_being_written(running, sdk):
    alone = sdk.completions.create(model="sum", prompt="1 + 2", **LONG)
    stream = sdk.completions.create(model="sum", prompt="1 + 2", stream=True, **LONG)
    first = next(iter(stream))
    running.server.should_exit = True
    rest = list(stream)
    text = "".join(c.choices[0].text for c in [first, *rest])
    assert text == alone.choices[0].text
    assert rest[-1].choices[0].finish_reason == "length"
