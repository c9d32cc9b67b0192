"""Clients as they should not be, and one as it should, to see what the others do to it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from tests.faults.servers import Server

TIMEOUT = 60.0
"""Seconds after which an answer counts as hung."""


def connect(server: Server, receive_bytes: int | None = None) -> socket.socket:
    """A connection; with so small a buffer for what comes, if one is named."""
    connection = socket.socket()
    if receive_bytes:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(TIMEOUT)
    connection.connect(("127.0.0.1", server.port))
    return connection


def request_of(path: str, body: Mapping[str, Any]) -> bytes:
    """The bytes of a request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def rest_of(connection: socket.socket) -> tuple[int | None, dict[str, Any] | None, float]:
    """What the server still says until it closes: status, body, and the seconds until then.

    The status is None where it says nothing.
    """
    began, said = time.monotonic(), b""
    with suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            said += part
    seconds = time.monotonic() - began
    if not said:
        return None, None, seconds
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body), seconds


def dribble(connection: socket.socket, data: bytes, pause: float, most: float) -> None:
    """Send a byte at a time, until the server closes or so many seconds are over."""
    until = time.monotonic() + most
    with suppress(ConnectionError):
        for byte in data:
            if time.monotonic() > until:
                return
            connection.sendall(bytes([byte]))
            time.sleep(pause)


class Visitors:
    """Well-behaved clients that ask again and again, each on connections of its own.

    Attributes:
        answered: how often each status came. cut: when each request was sent whose connection was
            refused, or closed before any answer, by its id; refused: the same of those that were
            answered by anything but 200. hung: answers that did not come in time. seconds: how long
            answers took.
    """

    def __init__(self, server: Server, path: str, body: Mapping[str, Any]) -> None:
        self.server, self.path, self.body = server, path, body
        self.answered: Counter[int] = Counter()
        self.cut: dict[str, float] = {}
        self.refused: dict[str, float] = {}
        self.hung = 0
        self.seconds: list[float] = []
        self.stopped = threading.Event()
        self.threads: list[threading.Thread] = []

    def begin(self, count: int) -> None:
        """So many of them ask from now on."""
        self.threads = [threading.Thread(target=self.ask) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def finish(self) -> None:
        """Nobody asks anew; once this returns, what became of every request is told."""
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def ask(self) -> None:
        """Ask until stopped, over one client that keeps its connections."""
        with httpx.Client(timeout=TIMEOUT) as client:
            turn = 0
            while not self.stopped.is_set():
                turn += 1
                name = f"v{threading.get_ident()}-{turn}"
                self._once(client, name)

    def _once(self, client: httpx.Client, name: str) -> None:
        began = time.monotonic()
        try:
            answer = client.post(
                self.server.address + self.path, json=self.body, headers={"X-Request-Id": name}
            )
        except httpx.TimeoutException:
            self.hung += 1
        except httpx.TransportError:
            self.cut[name] = began
            time.sleep(0.02)
        else:
            self.answered[answer.status_code] += 1
            if answer.status_code != 200:
                self.refused[name] = began
            self.seconds.append(time.monotonic() - began)

    @property
    def median(self) -> float:
        """Seconds of the answer in the middle."""
        return sorted(self.seconds)[len(self.seconds) // 2]


@contextmanager
def visiting(
    server: Server, path: str, body: Mapping[str, Any], count: int = 2
) -> Generator[Visitors]:
    """So many clients that ask all the time inside the context."""
    visitors = Visitors(server, path, body)
    visitors.begin(count)
    try:
        yield visitors
    finally:
        visitors.finish()


@contextmanager
def many(server: Server, count: int) -> Generator[list[socket.socket]]:
    """So many connections that say nothing."""
    connections = [connect(server) for _ in range(count)]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something holds; fail where that takes too long."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it does not come to pass"
        time.sleep(0.1)
