"""No memory left for what is asked: it is answered in parts, or 503, and the process goes on.

Some room is left for small things: where there is none at all, what is written in Rust (tokenizers,
pydantic) ends the process, and nothing can be done about that but to start it again.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.ledger import Ledger
from tests.faults.material import completion, decision, write_writer
from tests.faults.servers import Server, serving

LEAST = 16
"""MiB."""


def limit(server: Server, room: int) -> None:
    """Let the process have so many more bytes than it has; a negative number lifts the limit."""
    most = server.seen.memory_info().vms + room if room >= 0 else psutil.RLIM_INFINITY
    server.seen.rlimit(psutil.RLIMIT_AS, (most, psutil.RLIM_INFINITY))


def heavy(turn: int) -> dict[str, object]:
    """Hundreds of long inputs."""
    inputs = [f"{turn} {i} " + "x" * 110 for i in range(1000)]
    return {"model": "tiny-random", "input": inputs}


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [12])
def test_an_allocation_that_fails(
    rounds: int, start_library: Path, tmp_path: Path, ledger: Ledger
) -> None:
    options = ("--library", str(start_library), "--max-batch", "1000", "--threads", "1")
    with (
        ledger.fault("no memory for what is asked (RLIMIT_AS)") as fault,
        serving(tmp_path, *options) as server,
    ):
        small = httpx.post(f"{server.address}/v1/decisions", json=decision(), timeout=60)
        assert small.status_code == 200
        for turn in range(rounds):
            limit(server, (LEAST + 4 * turn) << 20)
            answer = httpx.post(f"{server.address}/v1/embeddings", json=heavy(turn), timeout=60)
            code = answer.json()["error"]["code"] if answer.is_error else "answered"
            alive = httpx.get(f"{server.address}/health").status_code == 200
            limit(server, -1)
            after = httpx.post(f"{server.address}/v1/embeddings", json=heavy(-turn), timeout=60)
            print(turn, answer.status_code, code)
            fault.round(f"{answer.status_code} {code}" if answer.is_error else code,
                        lost=not alive or after.status_code != 200)  # fmt: skip
            assert code in ("answered", "system_exhausted"), answer.text
        assert "there is no memory for a batch" in server.said


@pytest.mark.slow
def test_an_allocation_that_fails_while_writing(tmp_path: Path, ledger: Ledger) -> None:
    library = write_writer(tmp_path / "library")
    options = ("--backbone", "tiny-causal", "--library", str(library))
    with (
        ledger.fault("no memory for what is written (RLIMIT_AS)") as fault,
        serving(tmp_path, *options) as server,
    ):
        for turn in range(8):
            limit(server, (LEAST + 4 * turn) << 20)
            body = completion(200, n=32)
            answer = httpx.post(f"{server.address}/v1/completions", json=body, timeout=60)
            code = answer.json()["error"]["code"] if answer.is_error else "answered"
            limit(server, -1)
            after = httpx.post(f"{server.address}/v1/completions", json=completion(4), timeout=60)
            fault.round(f"{answer.status_code} {code}" if answer.is_error else code,
                        lost=after.status_code != 200)  # fmt: skip
            assert code in ("answered", "system_exhausted"), answer.text
