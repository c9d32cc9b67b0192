"""What one server with one core does under loads of many sizes: closed loops, and random arrivals.

The client has a core of its own. Each request is one question about a text that never comes again,
as in `benchmarks.server`. Knows nothing of costs.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TypeVar

import aiohttp
import httpx

from benchmarks.capacity.costs import Step
from benchmarks.material import decision, write_bodies
from benchmarks.processes import BenchmarkError, Load, cores, require, serving, wrk
from benchmarks.server import serve_command, settle

CONNECTIONS = (1, 2, 4, 8, 16, 32, 64, 128)
SHARES = (0.3, 0.5, 0.7, 0.8, 0.9)
"""Random arrivals, as shares of the most that the closed loops had."""
TEXTS = 60_000
PATH = "/v1/decisions"
T = TypeVar("T")


@dataclass
class Subject:
    """The server, and which texts it has not seen."""

    url: str
    bodies: Path
    lines: Sequence[bytes]
    client: int
    at: int = 0


@contextmanager
def subject() -> Generator[Subject]:
    """A server on one core, warm.

    Raises:
        BenchmarkError: it cannot be had here.
    """
    require("wrk", "wrk")
    core, client = cores(2)
    with tempfile.TemporaryDirectory() as made:
        bodies = write_bodies(Path(made) / "decisions.jsonl", TEXTS, decision)
        with serving(serve_command(threads=1), [core], "/ready") as url:
            os.sched_setaffinity(0, {client})  # we ask, too
            try:
                under = Subject(url, bodies, bodies.read_bytes().splitlines(), client)
                closed(under, 64, 20.0)
                yield under
            finally:
                os.sched_setaffinity(0, {core, client})


def closed(under: Subject, connections: int, seconds: float) -> Step:
    """So many connections that ask again as soon as they are answered."""

    def load() -> tuple[Load, float]:
        done = wrk(
            f"{under.url}{PATH}", under.bodies, under.at, seconds, [under.client], connections
        )
        return done, 1e3 * connections / done.rate  # Little's law

    (done, mean_ms), counted = _counted(under, load)
    under.at += done.requests + connections
    return Step(connections, done.rate, mean_ms, done.p50_ms, done.p99_ms, **counted)


def at_random(under: Subject, rate: float, seconds: float) -> Step:
    """Requests at random times, whether or not those before are answered.

    The times are those of every other round at this rate.
    """
    rng, arrivals = random.Random(rate), [0.0]
    while arrivals[-1] < seconds:
        arrivals.append(arrivals[-1] + rng.expovariate(rate))
    waits, counted = _counted(under, lambda: asyncio.run(_waits(under, arrivals)))
    under.at += len(waits)
    kept = sorted(waits[len(waits) // 3 :])
    return Step(
        0, len(waits) / arrivals[-1], mean(kept), kept[len(kept) // 2],
        kept[int(0.99 * len(kept))], **counted, arrivals=arrivals,
    )  # fmt: skip


async def _waits(under: Subject, arrivals: Sequence[float]) -> list[float]:
    """Milliseconds that each request took, from the second at which it was to be sent."""
    waits: dict[int, float] = {}

    async def ask(client: aiohttp.ClientSession, number: int, due: float) -> None:
        body = under.lines[(under.at + number) % len(under.lines)]
        async with client.post(PATH, data=body) as answer:
            text = await answer.read()
        if answer.status != 200:
            raise BenchmarkError(f"{PATH} answered {answer.status}: {text[:200]!r}")
        waits[number] = 1e3 * (time.perf_counter() - due)

    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(
            under.url, headers=headers, connector=aiohttp.TCPConnector(limit=0)
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        begun = time.perf_counter()
        for number, after in enumerate(arrivals):
            due = begun + after
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(ask(client, number, due))
    return [waits[number] for number in sorted(waits)]


def _counted(under: Subject, load: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """What a load brings, and what the server counted meanwhile."""
    before = _metrics(under.url)
    found = load()
    settle()
    after = _metrics(under.url)
    samples, batches, engine, cpu = (b - a for a, b in zip(before, after, strict=True))
    return found, {"batch": samples / batches, "engine": engine / batches, "cpu": cpu / samples}


def _metrics(url: str) -> list[float]:
    """Samples and batches so far, seconds in the engine, and of CPU."""
    text = httpx.get(f"{url}/metrics").text
    names = (
        "sailplane_batch_samples_sum", "sailplane_batch_samples_count",
        "sailplane_batch_seconds_sum", "process_cpu_seconds_total",
    )  # fmt: skip
    found = (re.search(rf"^{name} (\S+)$", text, re.MULTILINE) for name in names)
    return [float(value[1]) for value in found if value]
