"""The endpoint that writes instructions fails in every way: answers come in time nevertheless."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.faults.ledger import Ledger
from tests.faults.servers import Server, serving

pytestmark = pytest.mark.slow

TIMEOUT_MS = 700
REST = 5
"""Failures after which the server asks no more for a while."""
IN_TIME = TIMEOUT_MS / 1000 + 3.0
JSON = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

Behave = Callable[[socket.socket], None]


def says(text: str) -> Behave:
    return lambda connection: connection.sendall(text.encode())


def hang(connection: socket.socket) -> None:
    with suppress(OSError):
        while connection.recv(1 << 16):  # until the server leaves
            pass


def drip(connection: socket.socket) -> None:
    says(f"{JSON}Content-Length: 500\r\n\r\n")(connection)
    for _ in range(100):
        connection.sendall(b" ")
        time.sleep(0.1)


def endless(connection: socket.socket) -> None:
    says(f"{JSON}Transfer-Encoding: chunked\r\n\r\n")(connection)
    while True:
        connection.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")


def status(code: int) -> Behave:
    return says(f"HTTP/1.1 {code} No\r\nContent-Length: 2\r\nRetry-After: 60\r\n\r\nno")


BEHAVIOURS: dict[str, tuple[Behave, str]] = {
    "hangs": (hang, "timeout"),
    "sends a byte at a time": (drip, "timeout"),
    "sends a body without end": (endless, "malformed"),
    "answers 500": (status(500), "http_500"),
    "answers 429": (status(429), "http_429"),
    "answers garbage": (says(f"{JSON}Content-Length: 9\r\n\r\n{{garbage}}"), "malformed"),
    "is no HTTP": (says("220 smtp ready\r\n"), "unreachable"),
    "closes in mid-body": (says(f'{JSON}Content-Length: 99\r\n\r\n{{"choices"'), "unreachable"),
    "closes at once": (lambda _: None, "unreachable"),
}


class Endpoint:
    """Listens, and treats every request as `behave` says."""

    def __init__(self) -> None:
        self.behave: Behave = hang
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            self.behave(connection)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.listener.close()


@pytest.fixture
def writing(endpoint: Endpoint, start_library: Path, tmp_path: Path) -> Iterator[Server]:
    """A server of its own for each test: after five failures it lets an endpoint rest."""
    options = ("--writer", "openai", "--openai-base-url", endpoint.url,
               "--openai-timeout-ms", str(TIMEOUT_MS))  # fmt: skip
    with serving(tmp_path, "--library", str(start_library), *options) as server:
        yield server


def ask(server: Server, text: str) -> tuple[httpx.Response, float]:
    question = {"type": "choice", "choices": [{"value": "sunny"}, {"value": "rainy"}]}
    body = {"model": "auto", "input": text, "questions": [question], "routing": {"trace": "full"}}
    began = time.monotonic()
    answer = httpx.post(f"{server.address}/v1/decisions", json=body, timeout=60)
    return answer, time.monotonic() - began


@pytest.mark.parametrize("name", BEHAVIOURS)
@pytest.mark.parametrize("rounds", [7])
def test_the_template_takes_over_in_time(
    rounds: int, name: str, writing: Server, endpoint: Endpoint, ledger: Ledger
) -> None:
    endpoint.behave, note = BEHAVIOURS[name]
    with ledger.fault(f"the LLM endpoint {name}") as fault:
        for turn in range(rounds):
            answer, seconds = ask(writing, f"{name} {turn}")
            assert answer.status_code == 200, answer.text
            (question,) = answer.json()["routing"]["questions"]
            found = question["writer_note"]
            fault.round(f"the template's answer, {found}", hung=seconds > IN_TIME,
                        lost=question["writer"] != "template")  # fmt: skip
            assert found == (note if turn < REST else "cooling_down")
