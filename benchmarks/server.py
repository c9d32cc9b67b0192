"""The whole server at saturation, against its own engine called in-process on the same core.

Both answer choice questions of 4 labels about texts that never repeat, so instruction and choice
embeddings are warm and input embeddings are not. The engine gets batches as large as the
server's were on average. The client has a core of its own.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import httpx

from benchmarks.figures import Figure, at_least, reported
from benchmarks.material import decision, write_bodies
from benchmarks.places import LIBRARY
from benchmarks.processes import BenchmarkError, Load, Worker, cores, require, serving, working, wrk

TEXTS = 40_000
TARGET = 0.85


def run(quick: bool) -> list[Figure]:
    """Requests per second of the server and samples per second of the engine, in turns."""
    require("wrk", "wrk")
    rounds, seconds = (2, 2.0) if quick else (5, 20.0)
    core, client = cores(2)
    turns: list[tuple[Load, float, float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bodies = write_bodies(folder / "decisions.jsonl", TEXTS, decision)
        url = stack.enter_context(serving(serve_command(threads=1), [core], "/ready"))
        engine = stack.enter_context(working("engine", [core]))
        at = wrk(f"{url}/v1/decisions", bodies, 0, min(seconds, 3.0), [client]).requests
        engine.rate(at=0, batch=32, seconds=min(seconds, 3.0))
        for _ in range(rounds):
            turns.append(_turn(url, engine, bodies, at, seconds, client))
            at += turns[-1][0].requests
    return _figures(turns)


def serve_command(threads: int) -> list[str]:
    """The command line of the real server.

    Raises:
        BenchmarkError: it is not installed beside this Python.
    """
    sailplane = Path(sys.executable).with_name("sailplane")
    if not sailplane.exists():
        raise BenchmarkError(f"{sailplane} is missing: pip install -e '.[demo]'")
    return [
        str(sailplane), "serve", "--port", "{port}",
        "--library", str(LIBRARY), "--threads", str(threads),
    ]  # fmt: skip


def _turn(
    url: str, engine: Worker, bodies: Path, at: int, seconds: float, client: int
) -> tuple[Load, float, float]:
    """What the client saw, the mean batch size, and the engine's rate on the same texts."""
    samples, batches = _batches(url)
    load = wrk(f"{url}/v1/decisions", bodies, at, seconds, [client])
    settle()
    after_samples, after_batches = _batches(url)
    mean = (after_samples - samples) / (after_batches - batches)
    return load, mean, engine.rate(at=at, batch=mean, seconds=seconds)


def settle() -> None:
    """Wait until the server has ended the batch whose client has left: its core is free then."""
    time.sleep(1.0)


def _batches(url: str) -> tuple[float, float]:
    """Samples and batches that the server's engine has run so far."""
    text = httpx.get(f"{url}/metrics").text
    samples, batches = (
        re.search(rf"^sailplane_batch_samples_{part} (\S+)$", text, re.MULTILINE)
        for part in ("sum", "count")
    )
    assert samples is not None
    assert batches is not None
    return float(samples[1]), float(batches[1])


def _figures(turns: list[tuple[Load, float, float]]) -> list[Figure]:
    share = median(load.rate / engine for load, _, engine in turns)
    return [
        at_least("server / engine throughput, one core", share, TARGET),
        reported("server: /v1/decisions, requests/s", median(t[0].rate for t in turns)),
        reported("engine in-process, samples/s", median(t[2] for t in turns)),
        reported("mean batch of the server, samples", median(t[1] for t in turns)),
        reported("server: latency p50, ms", median(t[0].p50_ms for t in turns)),
        reported("server: latency p99, ms", median(t[0].p99_ms for t in turns)),
    ]
