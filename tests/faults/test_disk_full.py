"""A full disk: changes are refused and leave the library as before, and answers go on."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from pathlib import Path

import httpx
import pytest

from tests.faults.clients import wait_until
from tests.faults.disks import disk, fill, needs_root
from tests.faults.ledger import Ledger
from tests.faults.material import decision, opened
from tests.faults.servers import serving
from tests.faults.test_killed import changes, sound, state

pytestmark = [needs_root, pytest.mark.slow]
NOT_WRITTEN = re.compile(r'lost_total\{reason="not_written"\} (\S+)')
ROOM = 100 << 10
"""Bytes that the largest change needs, and more."""


@pytest.mark.parametrize("rounds", [7, pytest.param(63, marks=pytest.mark.slow)])
def test_changes_of_a_library_on_a_full_disk(
    rounds: int, start_library: Path, adapters: Path, tmp_path: Path, chance: random.Random,
    ledger: Ledger,
) -> None:  # fmt: skip
    asked = list(changes(adapters).items())
    with ledger.fault("disk full during a change of the library") as fault:
        for turn in range(rounds):
            name, (method, path, body) = asked[turn % len(asked)]
            leave = chance.choice([0, chance.randrange(ROOM)])
            with disk(tmp_path / f"disk-{turn}", "2m") as folder:
                root = shutil.copytree(start_library, folder / "library")
                before = state(opened(root).snapshot)
                options = ("--library", str(root), "--adapter-root", str(adapters))
                with serving(tmp_path, *options) as server:
                    filler = fill(folder, leave)
                    answer = httpx.request(method, server.address + path, json=body, timeout=30)
                    told = answer.json()["error"]["code"] if answer.is_error else "done"
                    print(f"{turn}: {name}, {leave} bytes left: {answer.status_code} {told}")
                    served = httpx.post(f"{server.address}/v1/decisions", json=decision())
                    now = opened(root)
                    kept = sound(now) and (answer.is_success or state(now.snapshot) == before)
                    filler.unlink()
                    again = httpx.request(method, server.address + path, json=body, timeout=30)
                    well = again.is_success or (answer.is_success and again.status_code < 500)
                    fault.round(f"{answer.status_code} {told}" if answer.is_error else "done",
                                lost=not (kept and well and served.status_code == 200))  # fmt: skip
                    assert told in ("done", "system_exhausted"), answer.text


def test_a_routing_log_on_a_full_disk(start_library: Path, tmp_path: Path, ledger: Ledger) -> None:
    with (
        ledger.fault("disk full under the routing log") as fault,
        disk(tmp_path / "disk", "1m") as folder,
    ):
        path = folder / "routing.jsonl"
        options = ("--library", str(start_library), "--routing-log", str(path))
        with serving(tmp_path, *options) as server:
            for full in (False, True, False):
                filler = fill(folder) if full else None
                answers = [httpx.post(f"{server.address}/v1/decisions", json=decision())
                           for _ in range(20)]  # fmt: skip
                lost = sum(answer.status_code != 200 for answer in answers)
                fault.round("answered" + (", lines counted as lost" if full else ""), lost=lost)
                time.sleep(0.5)
                if filler:
                    filler.unlink()
            last = answers[-1].headers["x-request-id"]
            wait_until(lambda: last in path.read_text())
            for line in path.read_text().splitlines():
                json.loads(line)
            metrics = httpx.get(f"{server.address}/metrics").text
            (told,) = NOT_WRITTEN.findall(metrics)
            assert float(told) > 0
            assert len(path.read_text().splitlines()) < 60
            assert server.stop() == 0


def test_its_own_log_on_a_full_disk(start_library: Path, tmp_path: Path, ledger: Ledger) -> None:
    with (
        ledger.fault("disk full under the server's own log") as fault,
        disk(tmp_path / "disk", "1m") as folder,
        serving(folder, "--library", str(start_library)) as server,
    ):
        fill(folder)
        for _ in range(20):
            answer = httpx.post(f"{server.address}/v1/decisions", json=decision())
            fault.round("answered", lost=answer.status_code != 200)
        assert server.stop() == 0
