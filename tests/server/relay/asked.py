"""Requests of all sorts, and what of their answers must be the same by whatever way they came."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.material import completion, decision

ONCE = ("id", "created", "milliseconds", "stages", "cache", "prompt_tokens_details", "path", "use")
"""Of one answer, or of what one server happens to have in memory."""
PASSING = {"date", "x-request-id", "content-length", "server", "transfer-encoding", "connection"}


@dataclass(frozen=True)
class Request:
    """What is sent."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        told = self.body if isinstance(self.body, dict) else {}
        marks = [k for k in ("stream", "routing", "n") if k in told]
        return " ".join([self.method, self.path, *marks])

    def send(self, client: httpx.Client) -> httpx.Response:
        raw = self.body if isinstance(self.body, bytes) else None
        told = None if raw is not None else self.body
        return client.request(self.method, self.path, json=told, content=raw, headers=self.headers)


def post(path: str, body: Any, **headers: str) -> Request:
    return Request("POST", path, body, headers)


READING = [
    post("/v1/decisions", decision()),
    post("/v1/decisions", decision() | {"model": "mood"}),
    post("/v1/decisions", decision(trace="full")),
    post("/v1/decisions", decision(router="nobody")),
    post("/v1/decisions", decision() | {"model": "nobody"}),
    post("/v1/decisions", decision() | {"questions": []}),
    post("/v1/decisions", b"{ not json"),
    post("/v1/decisions", b"x" * (5 << 20)),
    post("/v1/decisions", b"zipped", **{"Content-Encoding": "gzip"}),
    post("/v1/route", decision()),
    post("/v1/embeddings", {"model": "auto", "input": ["one", "a longer text", "third"]}),
    Request("GET", "/v1/models"),
    Request("GET", "/v1/experts"),
    Request("GET", "/v1/experts/mood"),
    Request("GET", "/v1/experts/nobody"),
    Request("GET", "/v1/aliases"),
    Request("GET", "/openapi.json"),
    Request("GET", "/nothing/h%C3%A9re?x=1"),
    Request("PATCH", "/v1/models"),
    Request("DELETE", "/v1/experts/nobody"),
    post("/v1/feedback", {"decision": "nobody", "labels": []}),
]  # fmt: skip
WRITING = [
    post("/v1/completions", completion(12, temperature=0)),
    post("/v1/completions", completion(12, temperature=0, stream=True)),
    post("/v1/completions", completion(8, seed=3, n=2, stream=True)),
    post("/v1/completions", completion(12, stream=True, stop=7)),
    post("/v1/completions", completion(10**6)),
    post("/v1/chat/completions", {"model": "mood", "messages": [{"role": "user", "content": "Hi"}],
                                  "max_completion_tokens": 9, "temperature": 0}),
    post("/v1/chat/completions", {"model": "mood", "messages": [{"role": "user", "content": "Hi"}],
                                  "max_completion_tokens": 9, "temperature": 0, "stream": True}),
]  # fmt: skip


def told(response: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of an answer, without what is of this one alone."""
    headers = {k: v for k, v in response.headers.items() if k not in PASSING}
    assert response.headers["x-request-id"]
    return response.status_code, headers, _body(response)


def _body(response: httpx.Response) -> Any:
    kind = response.headers.get("content-type", "")
    if kind.startswith("text/event-stream"):
        return [_plain(event) for event in events(response.text)]
    if kind.startswith("application/json"):
        return _plain(response.json())
    return response.text


def events(text: str) -> list[Any]:
    """The events of a stream, each as JSON or as it is."""
    found = re.findall(r"data: (.*)\n\n", text)
    assert "".join(f"data: {event}\n\n" for event in found) == text
    return [event if event == "[DONE]" else json.loads(event) for event in found]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if not once(k, v)}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def once(key: str, value: Any) -> bool:
    """Whether a field is of one answer alone; an expert's id is not."""
    if key == "id":
        return isinstance(value, str) and bool(re.search(r"[0-9a-f]{20}", value))
    return key in ONCE
