"""A server that stands still for some seconds under load: it goes on where it was."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.clients import visiting
from tests.faults.ledger import Ledger
from tests.faults.material import decision
from tests.faults.servers import Server, serving

pytestmark = pytest.mark.slow

STILL = 3.0
"""Seconds."""
DELAYS = (0.02, 0.05, 0.0, 0.1, 0.2, 0.4)
"""Seconds until it stops, tried in turn until some requests wait in the queue just then: how long
that takes depends on the machine."""


def ask(server: Server, told: list[tuple[int, str | None]]) -> None:
    body = decision("A question with little time.", timeout_ms=1000)
    answer = httpx.post(f"{server.address}/v1/decisions", json=body, timeout=60)
    told.append((answer.status_code, answer.json().get("error", {}).get("code")))


def stopped(server: Server, delay: float) -> list[tuple[int, str | None]]:
    """What many requests at once are told whose server stops after so many seconds, for `STILL`."""
    told: list[tuple[int, str | None]] = []
    asking = [threading.Thread(target=ask, args=(server, told)) for _ in range(60)]
    for thread in asking:
        thread.start()
    time.sleep(delay)
    server.signal(signal.SIGSTOP)
    time.sleep(STILL)
    server.signal(signal.SIGCONT)
    for thread in asking:
        thread.join()
    return told


def test_it_recovers_and_what_is_too_late_is_told_so(
    start_library: Path, tmp_path: Path, ledger: Ledger
) -> None:
    with (
        ledger.fault("kill -STOP for seconds under load") as fault,
        serving(tmp_path, "--library", str(start_library)) as server,
    ):
        late = 0
        for delay in DELAYS:
            with visiting(server, "/v1/decisions", decision(), count=4) as visitors:
                time.sleep(0.5)
                told = stopped(server, delay)
                time.sleep(0.5)
            lost = len([t for t in told if t not in ((200, None), (504, "deadline_passed"))])
            lost += len(visitors.cut) + sum(visitors.answered.values()) - visitors.answered[200]
            fault.round("answered, or 504 where the deadline passed", lost=lost, hung=visitors.hung)
            late += told.count((504, "deadline_passed"))
            print(f"after {delay} s: {late} of {len(told)} came too late")
            if late:
                break
        assert late
        answer = httpx.post(f"{server.address}/v1/decisions", json=decision(), timeout=30)
        assert answer.status_code == 200
