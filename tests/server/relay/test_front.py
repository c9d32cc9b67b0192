"""What the front does where a replica is lost: an app in this process that loses its answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from server.relay.front import Front
from server.relay.local import LocalRelay
from server.relay.messages import Absent, Asked, Head, Lost, Message, Whole
from server.relay.rules import SCAN
from tests.server.relay.asked import events
from tests.sockets import client_of


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with a stream of three events, or at once, as its path says."""
    kind = b"text/event-stream" if scope["path"].endswith("completions") else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    for event in (b'data: {"a": 1}\n\n', b'data: {"a": 2}\n\n', b"data: [DONE]\n\n"):
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


@dataclass
class Losing(LocalRelay):
    """Loses the answers of the first tries after so many messages each."""

    after: list[int]
    error: Callable[[], Exception] = Lost
    tries: int = 0
    asked_all: list[Asked] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(app)

    async def ask(self, asked: Asked) -> AsyncGenerator[Message]:
        self.tries += 1
        left = self.after[self.tries - 1] if self.tries <= len(self.after) else None
        async for message in super().ask(asked):
            if left == 0:
                raise self.error()
            left = None if left is None else left - 1
            yield message

    async def ask_all(self, asked: Asked, seconds: float) -> list[Whole]:
        self.asked_all.append(asked)
        return [Whole("one", Head(200, ())), Whole("two", Head(500, ()))]


def ask(relay: Losing, method: str, path: str) -> httpx.Response:
    with client_of(Front(relay, max_body_bytes=1000, retry_after=7), lifespan="off") as client:
        return client.request(method, path)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/decisions"), ("PUT", "/v1/aliases/x"), ("GET", "/any"),
                         ("HEAD", "/any"), ("POST", "/v1/completions")],
)  # fmt: skip
def test_what_can_be_repeated_is_asked_once_more(method: str, path: str) -> None:
    relay = Losing([0])
    assert ask(relay, method, path).status_code == 200
    assert relay.tries == 2


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/experts"), ("POST", "/v1/feedback"), ("POST", "/new"),
                         ("POST", "/v1/load_lora_adapter"), ("PUT", "/v1/experts/x"),
                         ("DELETE", "/v1/experts/x"), ("DELETE", "/v1/aliases/x")],
)  # fmt: skip
def test_what_may_have_been_carried_out_is_not(method: str, path: str) -> None:
    relay = Losing([0])
    answer = ask(relay, method, path)
    assert (answer.status_code, answer.headers["retry-after"], relay.tries) == (503, "7", 1)
    error = answer.json()["error"]
    assert error["code"] == "unavailable"
    assert "look before you send it again" in error["message"]
    assert answer.headers["x-request-id"]


def test_nothing_is_asked_a_third_time() -> None:
    relay = Losing([0, 0])
    answer = ask(relay, "POST", "/v1/decisions")
    assert (answer.status_code, answer.headers["retry-after"], relay.tries) == (503, "7", 2)


def test_where_nobody_is_nobody_is_asked_again() -> None:
    relay = Losing([0], Absent)
    answer = ask(relay, "POST", "/v1/decisions")
    assert (answer.status_code, answer.headers["retry-after"], relay.tries) == (503, "7", 1)


@pytest.mark.parametrize("error", [Lost, RuntimeError])
def test_a_stream_that_is_cut_ends_with_an_error_event(error: Callable[[], Exception]) -> None:
    relay = Losing([2], error)
    answer = ask(relay, "POST", "/v1/completions")
    first, second, last = events(answer.text)
    assert (first, second) == ({"a": 1}, {"a": 2})
    assert last["error"]["code"] == "unavailable"
    assert relay.tries == 1


def test_a_stream_that_had_said_all_is_whole() -> None:
    assert events(ask(Losing([3]), "POST", "/v1/completions").text)[-1] == "[DONE]"


def test_any_other_body_that_is_cut_closes_the_connection() -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask(Losing([2]), "POST", "/v1/decisions")


def test_an_error_that_nobody_foresaw_is_500_and_is_not_repeated() -> None:
    relay = Losing([0], RuntimeError)
    answer = ask(relay, "POST", "/v1/decisions")
    assert (answer.status_code, relay.tries) == (500, 1)
    assert answer.json()["error"]["code"] == "internal_error"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/experts"), ("DELETE", "/v1/experts/x"),
                         ("PUT", "/v1/aliases/x"), ("POST", "/v1/load_lora_adapter")],
)  # fmt: skip
def test_a_change_of_the_library_has_all_look_there(method: str, path: str) -> None:
    relay = Losing([])
    with client_of(Front(relay), lifespan="off") as client:
        client.request(method, path, headers={"Authorization": "Bearer x"})
    (look,) = relay.asked_all
    assert (look.method, look.path, look.body) == ("POST", SCAN, b"")
    assert look.header(b"authorization") == b"Bearer x"


def test_what_changes_nothing_has_nobody_look() -> None:
    for method, path in (("GET", "/v1/experts"), ("POST", SCAN), ("POST", "/v1/decisions")):
        relay = Losing([])
        ask(relay, method, path)
        assert relay.asked_all == []


def test_a_body_that_is_too_long_goes_nowhere() -> None:
    relay = Losing([])
    with client_of(Front(relay, max_body_bytes=1000), lifespan="off") as client:
        answer = client.post("/v1/decisions", content=b"x" * 1001)
    assert (answer.status_code, relay.tries) == (413, 0)
    assert json.loads(answer.text)["error"]["code"] == "body_too_large"
