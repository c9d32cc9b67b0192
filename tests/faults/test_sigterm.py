"""SIGTERM at any moment: what was accepted is answered, and the process ends with 0 in time."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.clients import Visitors, visiting, wait_until
from tests.faults.ledger import Fault, Ledger
from tests.faults.material import completion, decision, opened, write_writer
from tests.faults.servers import Server, begin, begin_script, serving

IN_TIME = 15.0
"""Seconds: more than it drains (10), on a busy machine."""
DRAIN = ("--drain-seconds", "10")


ARRIVING = 0.05
"""Seconds in which a request that was sent has surely come to be the server's."""
QUESTIONS = 30
"""So many about one text, in each request: at any moment some wait in the queue."""


def logged(server: Server) -> set[str]:
    """The id of every request that the server took on, by its own word."""
    lines = [json.loads(line) for line in server.said.splitlines() if line.startswith("{")]
    return {line["request_id"] for line in lines if line["event"] == "request"}


def many_questions() -> dict[str, Any]:
    """A decision that all but fills a batch."""
    body = decision()
    (question,) = body["questions"]
    asked = [{**question, "instructions": f"Say what the weather is like, {i}."}
             for i in range(QUESTIONS)]  # fmt: skip
    return {**body, "questions": asked}


def ended(server: Server, fault: Fault, visitors: Visitors | None = None) -> None:
    """Count a round: how a server that has just been told to end did it."""
    began = time.monotonic()
    code = server.ended(IN_TIME)
    late = code is None
    lost = 0
    if visitors is not None:
        visitors.finish()
        taken = logged(server)
        early = began - ARRIVING
        lost = sum(sent < early or name in taken for name, sent in visitors.cut.items())
        lost += sum(sent < early for sent in visitors.refused.values())
        lost += sum(n for status, n in visitors.answered.items() if status not in (200, 503))
    hung = late + (visitors.hung if visitors else 0)
    print(f"ended by {code} after {time.monotonic() - began:.2f} s")
    fault.round(f"exit {code}", lost=lost, hung=hung)
    assert code == 0, server.said[-3000:]


@pytest.mark.parametrize("rounds", [1, pytest.param(29, marks=pytest.mark.slow)])
def test_under_load_every_accepted_request_is_answered(
    rounds: int, start_library: Path, tmp_path: Path, chance: random.Random, ledger: Ledger
) -> None:
    with ledger.fault("SIGTERM under load of decisions") as fault:
        for _ in range(rounds):
            with serving(tmp_path, "--library", str(start_library), *DRAIN) as server:
                terminate(server, fault, "/v1/decisions", many_questions(), chance.uniform(0, 0.5))


def test_a_server_that_ends_at_once_would_be_found_out(start_library: Path, tmp_path: Path) -> None:
    options = ("--library", str(start_library), *DRAIN)
    with serving(tmp_path, *options, before="tests.faults.sabotage:end_at_once") as server:
        fault = Fault("ends at once")
        terminate(server, fault, "/v1/decisions", many_questions(), 0.2)
    assert fault.lost > 0


@pytest.mark.parametrize("rounds", [1, pytest.param(19, marks=pytest.mark.slow)])
def test_under_load_of_texts_they_are_written_to_their_end(
    rounds: int, tmp_path: Path, chance: random.Random, ledger: Ledger
) -> None:
    library = write_writer(tmp_path / "library")
    options = ("--backbone", "tiny-causal", "--library", str(library), *DRAIN)
    with ledger.fault("SIGTERM under load of texts") as fault:
        for _ in range(rounds):
            with serving(tmp_path, *options) as server:
                body = completion(100)
                terminate(server, fault, "/v1/completions", body, chance.uniform(0, 0.5))


def terminate(
    server: Server, fault: Fault, path: str, body: Mapping[str, Any], delay: float
) -> None:
    with visiting(server, path, body, count=6) as visitors:
        wait_until(lambda: visitors.answered[200])
        time.sleep(delay)
        server.signal(signal.SIGTERM)
        ended(server, fault, visitors)


@pytest.mark.parametrize("rounds", [1, pytest.param(11, marks=pytest.mark.slow)])
def test_streams_are_told_to_their_end(
    rounds: int, tmp_path: Path, chance: random.Random, ledger: Ledger
) -> None:
    library = write_writer(tmp_path / "library")
    options = ("--backbone", "tiny-causal", "--library", str(library), *DRAIN)
    body = completion(200, n=2, stream=True)
    with ledger.fault("SIGTERM under load of streams") as fault:
        for _ in range(rounds):
            with serving(tmp_path, *options) as server:
                told: list[str] = []
                readers = [threading.Thread(target=read, args=(server, body, told))
                           for _ in range(4)]  # fmt: skip
                for reader in readers:
                    reader.start()
                wait_until(lambda told=told: told)
                time.sleep(chance.uniform(0, 0.3))
                server.signal(signal.SIGTERM)
                ended(server, fault)
                for reader in readers:
                    reader.join()
                whole = sum(text.rstrip().endswith("data: [DONE]") for text in told)
                fault.lost += told.count("began") - whole


def read(server: Server, body: Mapping[str, Any], told: list[str]) -> None:
    """Adds "began" to what is told once a stream has begun, and its whole text at the end."""
    text = ""
    with (
        suppress(httpx.TransportError),
        httpx.stream("POST", f"{server.address}/v1/completions", json=body, timeout=30) as answer,
    ):
        for part in answer.iter_text():
            if answer.status_code == 200 and not text:
                told.append("began")
            text += part
    told.append(text)


@pytest.mark.parametrize("rounds", [1, pytest.param(9, marks=pytest.mark.slow)])
def test_while_it_lingers_it_is_not_ready_and_loses_nobody(
    rounds: int, start_library: Path, tmp_path: Path, ledger: Ledger
) -> None:
    options = ("--library", str(start_library), "--linger-seconds", "1.5", *DRAIN)
    with ledger.fault("SIGTERM, and a balancer that looks away in time") as fault:
        for _ in range(rounds):
            with serving(tmp_path, *options) as server:
                with visiting(server, "/v1/decisions", decision(), count=4) as visitors:
                    time.sleep(0.3)
                    server.signal(signal.SIGTERM)
                    until = time.monotonic() + IN_TIME
                    while httpx.get(f"{server.address}/ready").status_code != 503:
                        assert time.monotonic() < until
                    time.sleep(0.3)  # and on go the visitors: the balancer has not looked yet
                ended(server, fault, visitors)
                fault.lost += len(visitors.cut) + visitors.answered[503]


@pytest.mark.parametrize("rounds", [1, pytest.param(11, marks=pytest.mark.slow)])
def test_while_it_starts(
    rounds: int, start_library: Path, tmp_path: Path, chance: random.Random, ledger: Ledger
) -> None:
    with ledger.fault("SIGTERM while starting") as fault:
        for _ in range(rounds):
            server = begin(tmp_path, "--library", str(start_library))
            time.sleep(chance.uniform(0.02, 0.4))
            server.signal(signal.SIGTERM)
            code = server.ended(IN_TIME)
            fault.round(f"exit {code}", hung=code is None)
            assert code in (0, -signal.SIGTERM), server.said


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [6])
def test_while_the_script_starts(
    rounds: int, start_library: Path, tmp_path: Path, chance: random.Random, ledger: Ledger
) -> None:
    with ledger.fault("SIGTERM while the console script starts") as fault:
        for _ in range(rounds):
            server = begin_script(tmp_path, "--library", str(start_library))
            time.sleep(chance.uniform(1, 15))
            server.signal(signal.SIGTERM)
            code = server.ended(IN_TIME)
            fault.round(f"exit {code}", hung=code is None)
            assert code in (0, -signal.SIGTERM), server.said


@pytest.mark.parametrize("rounds", [1, pytest.param(9, marks=pytest.mark.slow)])
def test_twice_and_during_a_change_and_a_fit(
    rounds: int, start_library: Path, adapters: Path, tmp_path: Path, chance: random.Random,
    ledger: Ledger,
) -> None:  # fmt: skip
    examples = [{"input": f"Text {i} of a flight.", "label": ("launch", "soaring")[i % 2]}
                for i in range(64)]  # fmt: skip
    with ledger.fault("SIGTERM twice, during an add and a fit") as fault:
        for turn in range(rounds):
            root = tmp_path / f"library-{turn}"
            source = {"source": str(adapters / "flight"), "examples": examples}
            options = ("--library", str(root), "--adapter-root", str(adapters), *DRAIN)
            root.mkdir()
            with serving(tmp_path, *options) as server:
                told: list[int] = []
                adding = threading.Thread(target=add, args=(server, {"id": "f", **source}, told))
                adding.start()
                time.sleep(chance.uniform(0, 0.3))
                server.signal(signal.SIGTERM)
                time.sleep(0.1)
                server.signal(signal.SIGTERM)
                ended(server, fault)
                adding.join()
            there = "f" in opened(root).entries
            fault.lost += told == [201] and not there
            assert told in ([201], [503], [])


def add(server: Server, body: Mapping[str, Any], told: list[int]) -> None:
    with suppress(httpx.TransportError):
        told.append(httpx.post(f"{server.address}/v1/experts", json=body, timeout=30).status_code)
