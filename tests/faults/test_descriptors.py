"""No file descriptor left, by a limit or by many connections: nobody is blamed, and it recovers."""

from __future__ import annotations

import shutil
import socket
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.faults.clients import connect, wait_until
from tests.faults.ledger import Ledger
from tests.faults.material import decision
from tests.faults.servers import Server, serving

pytestmark = pytest.mark.slow


def listed(client: httpx.Client) -> tuple[set[str], list[object]]:
    body = client.get("/v1/experts", timeout=30).json()
    return {expert["id"] for expert in body["data"]}, body["bad"]


def at_rest(server: Server) -> int:
    """The descriptors that it has open all the time; a look at the library opens some more."""
    counts: list[int] = []
    for _ in range(30):
        counts.append(server.seen.num_fds())
        time.sleep(0.01)
    return min(counts)


def limit(server: Server, most: int) -> None:
    _, hard = server.seen.rlimit(psutil.RLIMIT_NOFILE)
    server.seen.rlimit(psutil.RLIMIT_NOFILE, (most, hard))


@pytest.mark.parametrize("rounds", [3, pytest.param(17, marks=pytest.mark.slow)])
def test_a_limit_that_is_reached_and_lifted(
    rounds: int, start_library: Path, adapters: Path, tmp_path: Path, ledger: Ledger
) -> None:
    """An expert is loaded and one is added while no file can be opened."""
    with ledger.fault("no file descriptor left (limit)") as fault:
        for turn in range(rounds):
            root = shutil.copytree(start_library, tmp_path / f"library-{turn}")
            options = ("--library", str(root), "--adapter-root", str(adapters),
                       "--scan-seconds", "0.2")  # fmt: skip
            with (
                serving(tmp_path, *options) as server,
                httpx.Client(base_url=server.address, timeout=30) as client,
            ):
                sound, _ = listed(client)
                limit(server, at_rest(server))
                flight = {"id": "flight", "source": str(adapters / "flight")}
                told = [
                    client.post("/v1/decisions", json={**decision(), "model": "weather"}),
                    client.post("/v1/experts", json=flight),
                    client.put("/v1/aliases/other", json={"expert": "mood"}),
                ]
                time.sleep(0.5)
                codes = [t.json().get("error", {}).get("code") for t in told]
                blamed = listed(client) != (sound, [])
                limit(server, 1024)
                after = [
                    client.post("/v1/decisions", json={**decision(), "model": "weather"}),
                    client.post("/v1/experts", json=flight),
                ]
                well = [a.status_code for a in after] == [200, 201]
                fault.round("503 system_exhausted, then served", lost=blamed or not well)
                assert codes == ["system_exhausted"] * 3, [t.text for t in told]


def test_many_connections(start_library: Path, tmp_path: Path, ledger: Ledger) -> None:
    """More than there are descriptors for: who is connected is served, who comes later can be."""
    options = ("--library", str(start_library), "--scan-seconds", "0.2")
    with (
        ledger.fault("no file descriptor left (connections)") as fault,
        serving(tmp_path, *options, "--client-timeout-seconds", "4") as server,
        httpx.Client(base_url=server.address, timeout=30) as client,
    ):
        sound = listed(client)
        limit(server, at_rest(server) + 20)
        held: list[socket.socket] = []
        for _ in range(60):
            with suppress(OSError):
                held.append(connect(server))
        time.sleep(0.5)
        before = sum(server.seen.cpu_times()[:2])
        time.sleep(1.5)
        spent = sum(server.seen.cpu_times()[:2]) - before
        blamed = listed(client) != sound
        with suppress(OSError):
            for connection in held:
                connection.close()
        wait_until(lambda: _answers(server))
        fault.round("others answered, then served", lost=blamed or listed(client) != sound)
        assert spent < 0.75, f"{spent} s of a core in 1.5 s: it spins"


def _answers(server: Server) -> bool:
    with suppress(httpx.TransportError):
        answer = httpx.post(f"{server.address}/v1/decisions", json=decision(), timeout=5)
        return answer.status_code == 200
    return False
