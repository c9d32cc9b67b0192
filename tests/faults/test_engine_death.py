"""The engine's thread dies: who waits is told at once, and `/health` has it be replaced."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx

from tests.faults.ledger import Ledger
from tests.faults.material import completion, decision, write_writer
from tests.faults.sabotage import DEADLY, HEAVY
from tests.faults.servers import serving

AT_ONCE = 10.0
"""Seconds; far less than the deadline of any request."""


def test_who_waits_is_told_and_health_says_dead(
    start_library: Path, tmp_path: Path, ledger: Ledger
) -> None:
    sabotage = "tests.faults.sabotage:engine_that_dies"
    with (
        ledger.fault("the engine's thread dies") as fault,
        serving(tmp_path, "--library", str(start_library), before=sabotage) as server,
    ):
        address = server.address
        heavy = httpx.post(f"{address}/v1/decisions", json=decision(HEAVY), timeout=30)
        assert (heavy.status_code, heavy.json()["error"]["code"]) == (503, "system_exhausted")
        assert httpx.get(f"{address}/health").json() == {"status": "ok"}
        told: list[tuple[int, float]] = []

        def ask(text: str) -> None:
            began = time.monotonic()
            answer = httpx.post(f"{address}/v1/decisions", json=decision(text), timeout=60)
            told.append((answer.status_code, time.monotonic() - began))

        texts = [*[f"Text {i}." for i in range(8)], DEADLY, *[f"Text {i}!" for i in range(8)]]
        asking = [threading.Thread(target=ask, args=(text,)) for text in texts]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        hung = sum(seconds > AT_ONCE for _, seconds in told)
        lost = sum(status not in (200, 503) for status, _ in told) + len(texts) - len(told)
        fault.round("503, and /health says dead", lost=lost, hung=hung)
        health = httpx.get(f"{address}/health")
        assert (health.status_code, health.json()) == (503, {"status": "dead"})
        assert httpx.get(f"{address}/ready").status_code == 503
        assert server.stop() == 0


def test_a_stream_is_told_too(tmp_path: Path, ledger: Ledger) -> None:
    library = write_writer(tmp_path / "library")
    options = ("--backbone", "tiny-causal", "--library", str(library))
    sabotage = "tests.faults.sabotage:writing_that_dies"
    with (
        ledger.fault("the engine's thread dies under a stream") as fault,
        serving(tmp_path, *options, before=sabotage) as server,
    ):
        began = time.monotonic()
        body = completion(100, stream=True)
        text = httpx.post(f"{server.address}/v1/completions", json=body, timeout=60).text
        hung = time.monotonic() - began > AT_ONCE
        fault.round("an error event", lost='"code":"unavailable"' not in text, hung=hung)
        assert httpx.get(f"{server.address}/health").status_code == 503
