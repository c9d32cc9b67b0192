"""An answer is the same by way of messages as by way of the app's own socket."""

from __future__ import annotations

import json
import pickle
import threading
import time
from types import SimpleNamespace

import httpx
import pytest

from server.relay.messages import Asked, Chunk, Head, Whole
from tests.faults.material import completion, decision
from tests.server.relay.asked import READING, WRITING, Request, told

RELAYED = {"x-relayed": "yes"}


def relayed(request: Request) -> Request:
    headers = {**request.headers, **RELAYED}
    return Request(request.method, request.path, request.body, headers)


@pytest.mark.parametrize("request_", READING, ids=lambda r: r.name)
def test_the_same_is_read(reading: SimpleNamespace, request_: Request) -> None:
    assert told(relayed(request_).send(reading.client)) == told(request_.send(reading.client))


@pytest.mark.parametrize("request_", WRITING, ids=lambda r: r.name)
def test_the_same_is_written(writing: SimpleNamespace, request_: Request) -> None:
    assert told(relayed(request_).send(writing.client)) == told(request_.send(writing.client))


def test_a_callers_request_id_comes_back_and_is_the_apps_too(reading: SimpleNamespace) -> None:
    headers = {**RELAYED, "X-Request-Id": "mine"}
    answer = reading.client.post("/v1/decisions", json=decision(), headers=headers)
    assert answer.headers.get_list("x-request-id") == ["mine"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_takes_its_text_back(writing: SimpleNamespace, stream: bool) -> None:
    loop, left = writing.service.engine.generation, left_by(writing)
    body = completion(200, n=16, stream=stream)
    asking = writing.client.stream("POST", "/v1/completions", json=body, headers=RELAYED,
                                   timeout=60 if stream else 0.2)  # fmt: skip
    if stream:
        with asking as answer:
            next(answer.iter_bytes())
    else:
        with pytest.raises(httpx.ReadTimeout), asking:
            pass
    until = time.monotonic() + 5
    while loop.busy:
        assert time.monotonic() < until, "it writes on for nobody"
        time.sleep(0.01)
    assert left_by(writing) == left + 1


def left_by(writing: SimpleNamespace) -> float:
    """Requests whose client left."""
    name, labels = "sailplane_requests_total", {"route": "/v1/completions", "status": "499"}
    return writing.service.metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_client_that_leaves_takes_its_samples_out_of_the_queue(reading: SimpleNamespace) -> None:
    service, gate = reading.service, threading.Event()
    run = service.engine.run
    service.engine.run = lambda samples: (gate.wait(20), run(samples))[1]
    try:
        with httpx.Client(base_url=reading.client.base_url) as other:
            holder = threading.Thread(target=other.post, args=("/v1/decisions",),
                                      kwargs={"json": decision(), "timeout": 30})  # fmt: skip
            holder.start()
            time.sleep(0.3)
            with pytest.raises(httpx.ReadTimeout):
                reading.client.post(
                    "/v1/decisions", json=decision("late"), headers=RELAYED, timeout=0.5
                )
            until = time.monotonic() + 5
            while service.metrics.registry.get_sample_value("sailplane_queue_samples"):
                assert time.monotonic() < until, "it waits for nobody"
                time.sleep(0.01)
            gate.set()
            holder.join()
    finally:
        gate.set()
        service.engine.run = run


def test_messages_are_plain() -> None:
    asked = Asked("GET", "/é", b"/%C3%A9", b"a=1", ((b"host", b"x"),), b"{}", client=("::1", 3))
    head = Head(200, ((b"content-type", b"text/plain"),), b"a", more=True)
    for message in (asked, head, Chunk(b"b", False), Whole("one", head)):
        assert pickle.loads(pickle.dumps(message)) == message
    assert json.loads(asked.body) == {}
