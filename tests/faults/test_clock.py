"""The wall clock jumps by hours: deadlines and connections keep to the time that passes."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from tests.faults.clients import TIMEOUT, connect, rest_of, visiting, wait_until
from tests.faults.ledger import Ledger
from tests.faults.material import decision
from tests.faults.servers import Server, serving

FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
STEPS = (36_000, -36_000, 0, -360_000, 360_000, 0)
"""Seconds that the clock differs from the right time, one after the other."""
PATIENCE = 3.0


def set_clock(clock: Path, step: int) -> None:
    """In one step: it is read at every look at the time."""
    fresh = clock.with_suffix(".new")
    fresh.write_text(f"{step:+d}s\n")
    fresh.replace(clock)


def ahead(server: Server) -> float:
    """Seconds that the server's clock is ahead of the right time, by its answers."""
    date = httpx.get(f"{server.address}/health", timeout=TIMEOUT).headers["date"]
    return parsedate_to_datetime(date).timestamp() - time.time()


@pytest.mark.slow
@pytest.mark.skipif(FAKETIME is None, reason="needs Debian's libfaketime")
def test_steps_of_the_clock_change_no_answer(
    start_library: Path, tmp_path: Path, ledger: Ledger
) -> None:
    clock = tmp_path / "clock"
    set_clock(clock, 0)
    env = {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock),
           "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}  # fmt: skip
    options = ("--library", str(start_library), "--scan-seconds", "0.5",
               "--client-timeout-seconds", str(PATIENCE))  # fmt: skip
    with (
        ledger.fault("the wall clock jumps by hours") as fault,
        serving(tmp_path, *options, env=env, script=True) as server,
    ):
        for step in STEPS:
            with visiting(server, "/v1/decisions", decision(timeout_ms=5000)) as visitors:
                time.sleep(0.5)
                silent = connect(server)
                set_clock(clock, step)
                wait_until(lambda step=step: abs(ahead(server) - step) < 60)
                rest = rest_of(silent)
            lost = len(visitors.cut) + sum(visitors.answered.values()) - visitors.answered[200]
            late = rest[2] > PATIENCE + 4
            print(f"{step:+d} s: {dict(visitors.answered)}, cut: {visitors.cut}")
            fault.round("answered in time", lost=lost, hung=visitors.hung + late)
            ready = httpx.get(f"{server.address}/ready")
            assert ready.status_code == 200
        assert server.stop() == 0
