"""Replicas behind the Ray ingress that die: nobody loses a request that nobody had begun to answer.

A stream that was cut says so in an error event. Needs the extra `ray`.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.deploy.ray.clusters import Set, cluster, options, run
from tests.faults.clients import Visitors, visiting
from tests.faults.ledger import Ledger
from tests.faults.material import completion, decision, write_writer
from tests.server.relay.asked import events

pytestmark = pytest.mark.slow
ROUNDS = 12


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with cluster() as address:
        yield address


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_writer(tmp_path_factory.mktemp("replicas") / "library")


@pytest.fixture(scope="module")
def of_set(address: str, library: Path) -> Set:
    of_set = run(address, options(library, backbone="tiny-causal"))
    of_set.wait_for(2)
    return of_set


def lost_by(visitors: Visitors) -> int:
    """Requests that ended in anything but an answer."""
    failed = sum(n for status, n in visitors.answered.items() if status != 200)
    print(visitors.answered, "cut", len(visitors.cut), "hung", visitors.hung)
    return failed + len(visitors.cut)


@pytest.mark.parametrize(
    ("number", "rounds"), [(signal.SIGKILL, ROUNDS), (signal.SIGTERM, ROUNDS // 3)]
)
def test_a_replica_that_dies_loses_no_request(
    of_set: Set, number: int, rounds: int, chance: random.Random, ledger: Ledger
) -> None:
    with ledger.fault(f"a replica of two: {signal.Signals(number).name}, decisions") as fault:
        for _ in range(rounds):
            pids = of_set.wait_for(2)
            with visiting(of_set, "/v1/decisions", decision(), count=6) as visitors:
                time.sleep(chance.uniform(0.2, 1.0))
                of_set.kill(chance.choice(pids), number)
                time.sleep(1.5)
            answered = "answered by the other"
            fault.round(answered, lost=lost_by(visitors), hung=visitors.hung)
            assert visitors.answered[200] > 10


@dataclass
class Reader:
    """Reads streams one after another; keeps how each began and ended."""

    of_set: Set
    whole: int = 0
    cut: int = 0
    lost: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        body = completion(200, n=4, stream=True)
        with self.of_set.client() as client:
            while not self.stopped.is_set():
                try:
                    answer = client.post("/v1/completions", json=body)
                    last = events(answer.text)[-1] if answer.is_success else None
                except httpx.TransportError as error:
                    self.lost.append(repr(error))
                    continue
                if last == "[DONE]":
                    self.whole += 1
                elif isinstance(last, dict) and last["error"]["code"] == "unavailable":
                    self.cut += 1
                else:
                    self.lost.append(answer.text[-300:])


def test_a_stream_that_is_cut_says_so(of_set: Set, chance: random.Random, ledger: Ledger) -> None:
    cut = 0
    with ledger.fault("a replica of two: SIGKILL, streams") as fault:
        for _ in range(ROUNDS):
            pids = of_set.wait_for(2)
            readers = [Reader(of_set) for _ in range(4)]
            threads = [threading.Thread(target=reader.read) for reader in readers]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.3, 1.0))
            of_set.kill(chance.choice(pids))
            time.sleep(1.5)
            for reader in readers:
                reader.stopped.set()
            for thread in threads:
                thread.join(60)
            lost = [text for reader in readers for text in reader.lost]
            print([(r.whole, r.cut) for r in readers], lost)
            of_round = sum(reader.cut for reader in readers)
            cut += of_round
            ending = "some cut, with an error event" if of_round else "none was under way there"
            fault.round(ending, lost=len(lost), hung=sum(t.is_alive() for t in threads))
        fault.endings[f"{cut} streams cut in all"] += 1
    assert cut, "no stream was cut: nothing was shown"


def test_without_any_replica_it_is_said_at_once_and_ends_by_itself(
    of_set: Set, ledger: Ledger
) -> None:
    with ledger.fault("both replicas: SIGKILL") as fault, of_set.client() as client:
        for _ in range(3):
            for pid in of_set.wait_for(2):
                of_set.kill(pid)
            began = time.monotonic()
            answer = client.post("/v1/decisions", json=decision())
            seconds = time.monotonic() - began
            print(answer.status_code, answer.text, f"{seconds:.2f} s")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert seconds < 8
            ready = client.get("/ready")
            assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
            assert client.get("/health").is_success
            of_set.wait_for(2)
            assert client.post("/v1/decisions", json=decision()).status_code == 200
            assert client.get("/ready").is_success
            fault.round("503 with Retry-After, then two new ones")


def test_a_new_version_loses_nobody(
    of_set: Set, address: str, library: Path, ledger: Ledger
) -> None:
    given = options(library, backbone="tiny-causal")
    with ledger.fault("replicas replaced one after the other, under load") as fault:
        for _ in range(2):
            before = set(of_set.wait_for(2))
            with (
                visiting(of_set, "/v1/decisions", decision(), count=4) as asking,
                visiting(of_set, "/v1/completions", completion(200, n=4), count=2) as writing,
            ):
                run(address, given)
                after = set(of_set.wait_for(2))
                time.sleep(1)
            assert not before & after, "all are new"
            lost = lost_by(asking) + lost_by(writing)
            fault.round("drained", lost=lost, hung=asking.hung + writing.hung)
