"""Clients that stall, leave, dribble or never read: others are served, and nothing is kept."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest

from tests.faults.clients import (
    connect,
    dribble,
    many,
    request_of,
    rest_of,
    visiting,
    wait_until,
)
from tests.faults.ledger import Ledger
from tests.faults.material import completion, decision, write_writer
from tests.faults.servers import Server, serving

PATIENCE = 2.0
OPTIONS = ("--client-timeout-seconds", str(PATIENCE))
PATH = "/v1/decisions"
HEAD = b"POST /v1/decisions HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n"
LATE = PATIENCE + 4.0
"""Seconds after which a connection must have been closed; the machine may be busy."""

Client = Callable[[Server], tuple[int | None, str | None, float]]


def silent(server: Server) -> tuple[int | None, str | None, float]:
    with closing(connect(server)) as connection:
        return told(rest_of(connection))


def slow_head(server: Server) -> tuple[int | None, str | None, float]:
    with closing(connect(server)) as connection:
        sending = threading.Thread(target=dribble, args=(connection, HEAD, 0.1, LATE))
        sending.start()
        found = told(rest_of(connection))
        sending.join()
        return found


def endless_head(server: Server) -> tuple[int | None, str | None, float]:
    with closing(connect(server)) as connection:
        connection.sendall(HEAD)
        sending = threading.Thread(target=shout, args=(connection, b"X-More: " + b"x" * 8000))
        sending.start()
        found = told(rest_of(connection))
        sending.join()
        return found


def stalled_body(server: Server) -> tuple[int | None, str | None, float]:
    with closing(connect(server)) as connection:
        connection.sendall(HEAD + b"\r\n" + b'{"model": ')
        return told(rest_of(connection))


def slow_body(server: Server) -> tuple[int | None, str | None, float]:
    with closing(connect(server)) as connection:
        connection.sendall(HEAD + b"\r\n")
        sending = threading.Thread(target=dribble, args=(connection, b"{" * 400, 0.1, LATE))
        sending.start()
        found = told(rest_of(connection))
        sending.join()
        return found


def body_nobody_wants(server: Server) -> tuple[int | None, str | None, float]:
    """A body for a route without one, without end: it was answered, and goes on."""
    with closing(connect(server)) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200")
        sending = threading.Thread(target=dribble, args=(connection, b"x" * 400, 0.1, LATE))
        sending.start()
        found = told(rest_of(connection))
        sending.join()
        return found


def told(rest: tuple[int | None, dict[str, dict[str, str]] | None, float]) -> tuple[
    int | None, str | None, float
]:  # fmt: skip
    status, body, seconds = rest
    return status, body and body["error"]["code"], seconds


def shout(connection: object, header: bytes) -> None:
    try:
        for _ in range(1000):
            connection.sendall(header + b"\r\n")  # type: ignore[attr-defined]
    except OSError:
        pass


BEHAVIOURS: dict[str, tuple[Client, tuple[int | None, str | None]]] = {
    "a client that says nothing": (silent, (None, None)),
    "a head sent a byte at a time": (slow_head, (408, "request_too_slow")),
    "a head without end": (endless_head, (431, "head_too_large")),
    "a client that stalls in mid-body": (stalled_body, (408, "request_too_slow")),
    "a body sent a byte at a time": (slow_body, (408, "request_too_slow")),
    "a body that nobody asked for": (body_nobody_wants, (None, None)),  # one answer is enough
}


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_client_that_keeps_the_server_waiting_is_told_and_cut(
    name: str, server: Server, ledger: Ledger
) -> None:
    client, expected = BEHAVIOURS[name]
    with ledger.fault(name) as fault:
        status, code, seconds = client(server)
        fault.round(f"{status} {code}" if status else "closed", hung=seconds > LATE)
        assert (status, code) == expected


def test_others_are_served_while_hundreds_say_nothing_or_half(
    server: Server, ledger: Ledger
) -> None:
    with ledger.fault("hundreds of clients that stall, beside others") as fault:
        with visiting(server, PATH, decision()) as alone:
            time.sleep(2)
        with many(server, 300) as held:
            for connection in held[::2]:
                connection.sendall(HEAD + b"\r\n{")
            with visiting(server, PATH, decision()) as beside:
                time.sleep(PATIENCE - 0.5)
            assert len(server.seen.net_connections()) > 250, "they are there, and wait"
            wait_until(lambda: len(server.seen.net_connections()) < 10)
        lost = sum(beside.answered.values()) - beside.answered[200] + len(beside.cut)
        fault.round("others answered, then cut", lost=lost, hung=beside.hung)
        assert beside.median < 3 * alone.median, (beside.median, alone.median)


@pytest.mark.parametrize("rounds", [100])
def test_clients_that_leave_cost_nothing(rounds: int, server: Server, ledger: Ledger) -> None:
    asked = request_of(PATH, decision())
    with ledger.fault("clients that leave in mid-request or before the answer") as fault:
        for turn in range(rounds):
            with closing(connect(server)) as connection:
                connection.sendall(asked[: len(asked) * (turn + 1) // rounds])
            fault.round("others answered")
        answer = httpx.post(server.address + PATH, json=decision(), timeout=30)
        fault.round("others answered", lost=answer.status_code != 200)
        wait_until(lambda: len(server.seen.net_connections()) < 10)
        assert "Traceback" not in server.said


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("writer")
    library = write_writer(folder / "library")
    options = ("--backbone", "tiny-causal", "--library", str(library), "--log-level", "debug")
    with serving(folder, *options, *OPTIONS) as server:
        yield server


def in_flight(server: Server) -> int:
    """Requests that are being answered, this one aside."""
    text = httpx.get(f"{server.address}/metrics").text
    found = re.search(r"^sailplane_requests_in_flight (\S+)$", text, re.MULTILINE)
    assert found is not None
    return int(float(found[1])) - 1


def test_a_stream_that_nobody_reads_is_cut_and_frees_what_it_held(
    writer: Server, ledger: Ledger
) -> None:
    body = completion(200, n=32, stream=True, logprobs=5)  # more than sockets hold
    with ledger.fault("clients that never read their stream") as fault:
        streams = [connect(writer, receive_bytes=2048) for _ in range(4)]
        for connection in streams:
            connection.sendall(request_of("/v1/completions", body))
        with visiting(writer, "/v1/completions", completion(4), count=1) as beside:
            time.sleep(3)
        fault.round("cut; others answered", hung=beside.hung,
                    lost=sum(beside.answered.values()) - beside.answered[200])  # fmt: skip
        assert beside.answered[200]
        wait_until(lambda: not in_flight(writer))
        wait_until(lambda: len(writer.seen.net_connections()) < 3)
        assert writer.said.count("its client takes no answer") == 4
        for connection in streams:
            connection.close()
