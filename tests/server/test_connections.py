"""Connections whose clients keep the server waiting, on a real socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import uvicorn

from server.api.bounds import Bounds
from server.connections import MAX_PASSED_OVER, Connection
from server.errors import QueueFull
from server.listener import Listener

PATIENCE = 0.4


@pytest.fixture
def port(app, service) -> Iterator[int]:
    yield from listening(app, service, PATIENCE)


@pytest.fixture
def patient(app, service) -> Iterator[int]:
    """A server that waits so long that it is something else that ends a connection."""
    yield from listening(app, service, 30.0)


def listening(app, service, patience: float) -> Iterator[int]:
    app.state.context = replace(app.state.context, bounds=Bounds(client_seconds=patience))
    config = uvicorn.Config(app, port=0, log_config=None, http=Connection)
    ports: list[int] = []
    listener = Listener(config, service, patience=patience, linger=0, drain=5, greet=ports.append)
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    while not ports:
        time.sleep(0.01)
    yield ports[0]
    listener.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


def said_to(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that the server says to a client that sends these bytes and waits."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)
        said = b""
        while more := connection.recv(1 << 16):
            said += more
        return said


HEAD = b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\n"
OK = b"GET /health HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([HEAD], 408, "request_too_slow"),
        ([HEAD + b"Content-Length: 10\r\n\r\n{"], 408, "request_too_slow"),
        ([HEAD + b"X-Long: " + b"x" * 70_000], 431, "head_too_large"),
        ([b"this is no HTTP\r\n\r\n"], 400, "malformed_head"),
    ],
)
def test_it_is_told_why_it_is_cut(port, parts, status, code):
    head, _, body = said_to(port, *parts).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert b"connection: close" in head.lower()
    error = json.loads(body)["error"]
    assert (error["code"], error["param"]) == (code, None)


def test_a_body_that_comes_after_its_answer_is_passed_over(service, port, monkeypatch):
    monkeypatch.setattr(service, "require_room", refusing)
    body = b" " * 100_000
    parts = [HEAD + b"Content-Length: 200000\r\n\r\n", body, body]
    said = said_to(port, *parts, OK + b"Connection: close\r\n\r\n", pause=PATIENCE / 8)
    answers = [part.split()[0] for part in said.split(b"HTTP/1.1 ")[1:]]
    assert answers == [b"503", b"200"]


def test_such_a_body_may_come_in_any_pieces(service, port, monkeypatch):
    """Its end too, with more before it than a head may have."""
    monkeypatch.setattr(service, "require_room", refusing)
    parts = [HEAD + b"Content-Length: 300000\r\n\r\n", b" " * 100_000, b" " * 200_000]
    said = said_to(port, *parts, OK + b"Connection: close\r\n\r\n", pause=PATIENCE / 8)
    answers = [part.split()[0] for part in said.split(b"HTTP/1.1 ")[1:]]
    assert answers == [b"503", b"200"]


def test_after_such_a_body_a_connection_may_be_idle(service, port, monkeypatch):
    """And is told nothing that its next request could take for an answer."""
    monkeypatch.setattr(service, "require_room", refusing)
    parts = [HEAD + b"Content-Length: 100000\r\n\r\n", b" " * 100_000]
    said = said_to(port, *parts, OK + b"Connection: close\r\n\r\n", pause=3 * PATIENCE)
    answers = [part.split()[0] for part in said.split(b"HTTP/1.1 ")[1:]]
    assert answers == [b"503", b"200"]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_body_that_is_too_long_is_read_so_that_its_answer_arrives(patient, version):
    """Closed at once, the connection would be reset, and the answer might be lost with it."""
    body = b" " * (MAX_PASSED_OVER // 2)
    head = HEAD.replace(b"1.1", version) + b"Content-Length: %d\r\n\r\n" % len(body)
    head_said, _, told = said_to(patient, head, body).partition(b"\r\n\r\n")
    assert head_said.split()[1] == b"413"
    assert b"connection: close" in head_said.lower()
    assert json.loads(told)["error"]["code"] == "body_too_large"


def test_and_it_is_not_read_for_ever(patient):
    with pytest.raises(ConnectionError):  # there were bytes that nobody read
        said_to(patient, HEAD + b"Content-Length: 99999999999\r\n\r\n", *[b" " * (1 << 20)] * 64)


def test_a_body_that_was_to_be_asked_for_is_not_waited_for(service, patient, monkeypatch):
    """The next request would be taken for it."""
    monkeypatch.setattr(service, "require_room", refusing)
    begun = time.monotonic()
    said = said_to(patient, HEAD + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n")
    assert said.split()[1] == b"503"
    assert time.monotonic() - begun < 10


def test_trailers_without_end_are_cut(patient):
    chunks = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Long: "
    with pytest.raises(ConnectionError):
        said_to(patient, chunks, *[b"x" * 50_000] * 100, pause=0.01)


def test_after_such_a_body_the_next_head_has_its_own_time(service, port, monkeypatch):
    monkeypatch.setattr(service, "require_room", refusing)
    third = b" " * 50_000
    parts = [HEAD + b"Content-Length: 150000\r\n\r\n" + third, third, third]
    said = said_to(port, *parts, OK + b"Connection: close\r\n\r\n", pause=0.75 * PATIENCE)
    answers = [part.split()[0] for part in said.split(b"HTTP/1.1 ")[1:]]
    assert answers == [b"503", b"200"]


def refusing(*_: object) -> None:
    raise QueueFull("The queue is full.", retry_after=1)


def test_who_says_nothing_is_told_nothing(port):
    assert said_to(port) == b""


def test_a_head_in_parts_is_fine_within_its_time(port):
    said = said_to(port, OK, b"Connection: ", b"close\r\n", b"\r\n", pause=PATIENCE / 8)
    assert said.startswith(b"HTTP/1.1 200")


def test_odd_bytes_between_two_requests_do_not_keep_a_connection(port):
    said = said_to(port, OK + b"\r\n", b"\r\n")
    assert said.startswith(b"HTTP/1.1 200")
