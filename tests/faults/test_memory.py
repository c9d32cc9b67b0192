"""No memory left for tensors: 503 for what has no room even alone, and the process goes on."""

from __future__ import annotations

from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.ledger import Ledger
from tests.faults.material import completion, decision, write_writer
from tests.faults.sabotage import SHORT
from tests.faults.servers import Server, serving

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_an_allocation_that_fails(
    rounds: int, start_library: Path, tmp_path: Path, ledger: Ledger
) -> None:
    """In a new server each time: one keeps the memory that a large batch once took."""
    options = ("--library", str(start_library), "--max-batch", "1000")
    short = 0
    with ledger.fault("no memory for tensors (RLIMIT_AS in a pass)") as fault:
        for turn in range(rounds):
            with serving(
                tmp_path, *options, before="tests.faults.sabotage:memory_that_is_short"
            ) as server:
                room = 256 << turn % 4
                inputs = [f"{SHORT} {room} {i} " + "x" * 100 for i in range(1000)]
                body = {"model": "tiny-random", "input": inputs}
                answer = httpx.post(f"{server.address}/v1/embeddings", json=body, timeout=60)
                code = answer.json()["error"]["code"] if answer.is_error else "answered"
                after = httpx.post(f"{server.address}/v1/decisions", json=decision(), timeout=60)
                print(f"{room} KiB: {answer.status_code} {code}; then {after.text}")
                fault.round(f"{answer.status_code} {code}" if answer.is_error else code,
                            lost=after.status_code != 200)  # fmt: skip
                assert code in ("answered", "system_exhausted"), answer.text
                short += "there is no memory for a batch" in server.said
    assert short, "there was memory all the time"


@pytest.mark.slow
def test_an_allocation_that_fails_while_writing(tmp_path: Path, ledger: Ledger) -> None:
    library = write_writer(tmp_path / "library")
    options = ("--backbone", "tiny-causal", "--library", str(library))
    with (
        ledger.fault("no memory for a text (RLIMIT_AS)") as fault,
        serving(tmp_path, *options) as server,
    ):
        for turn in range(8):
            limit(server, (16 + 4 * turn) << 20)
            body = completion(200, n=32)
            answer = httpx.post(f"{server.address}/v1/completions", json=body, timeout=60)
            code = answer.json()["error"]["code"] if answer.is_error else "answered"
            limit(server, -1)
            after = httpx.post(f"{server.address}/v1/completions", json=completion(4), timeout=60)
            fault.round(f"{answer.status_code} {code}" if answer.is_error else code,
                        lost=after.status_code != 200)  # fmt: skip
            assert code in ("answered", "system_exhausted"), answer.text


def limit(server: Server, room: int) -> None:
    """Let the process have so many more bytes than it has; a negative number lifts the limit."""
    most = server.seen.memory_info().vms + room if room >= 0 else psutil.RLIM_INFINITY
    server.seen.rlimit(psutil.RLIMIT_AS, (most, psutil.RLIM_INFINITY))
