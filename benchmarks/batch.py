"""`sailplane batch` against the server and against the engine called in-process, on the same core.

All three answer the same choice questions about texts that never repeat. The batch reads a file
and writes one, with the server's JSON; the server's client has a core of its own.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, at_least, reported
from benchmarks.material import decision, write_bodies
from benchmarks.processes import Worker, cores, require, serving, working, wrk
from benchmarks.server import serve_command, settle

TEXTS = 40_000
TARGET = 1.0


def run(quick: bool) -> list[Figure]:
    """Samples per second of each, in turns."""
    require("wrk", "wrk")
    rounds, seconds = (2, 3.0) if quick else (5, 10.0)
    core, client = cores(2)
    turns: list[tuple[float, float, float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bodies = write_bodies(folder / "decisions.jsonl", TEXTS, decision)
        url = stack.enter_context(serving(serve_command(threads=1), [core], "/ready"))
        batch = stack.enter_context(working("batch", [core]))
        engine = stack.enter_context(working("engine", [core]))
        at = wrk(f"{url}/v1/decisions", bodies, 0, min(seconds, 3.0), [client]).requests
        _rates(batch, engine, 0, at, 0.1)
        for _ in range(rounds):
            load = wrk(f"{url}/v1/decisions", bodies, at, seconds, [client])
            settle()
            turns.append((load.rate, *_rates(batch, engine, at, load.requests, seconds)))
            at += load.requests
    return _figures(turns)


def _rates(
    batch: Worker, engine: Worker, at: int, lines: int, seconds: float
) -> tuple[float, float]:
    """Of a batch of as many lines as the server answered, and of the engine in full batches."""
    return (
        batch.rate(at=at, batch=lines, seconds=min(seconds, 0.5)),
        engine.rate(at=at, batch=32, seconds=seconds),
    )


def _figures(turns: list[tuple[float, float, float]]) -> list[Figure]:
    return [
        at_least("batch / server throughput, one core", median(b / s for s, b, _ in turns), TARGET),
        reported("batch / engine in-process", median(b / e for _, b, e in turns)),
        reported("batch, lines/s", median(t[1] for t in turns)),
        reported("server: /v1/decisions, requests/s", median(t[0] for t in turns)),
        reported("engine in-process, samples/s", median(t[2] for t in turns)),
    ]
