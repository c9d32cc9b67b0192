"""Replicas behind the Ray ingress, against one plain process: what a request costs, and how many.

All run at one time on the same cores and are asked in turns. On two cores two replicas cannot do
twice the work of one process that has both: client, proxy and ingress need their share as well.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import httpx

from benchmarks.figures import Figure, reported
from benchmarks.material import decision, write_bodies
from benchmarks.places import LIBRARY, ROOT
from benchmarks.processes import BenchmarkError, Load, cores, require, serving, wrk
from benchmarks.server import serve_command, settle

TEXTS = 40_000
PLAIN = "one process"
SETS = {"one replica": 1, "two replicas": 2}


def run(quick: bool) -> list[Figure]:
    """Latency of single requests and throughput of 64 connections, in turns."""
    require("wrk", "wrk")
    if importlib.util.find_spec("ray") is None:
        raise BenchmarkError("ray is missing: pip install -e '.[ray]'")
    rounds, seconds, singles = (1, 2.0, 20) if quick else (5, 15.0, 200)
    on = cores(2)
    loads: dict[str, list[Load]] = {}
    waits: dict[str, list[float]] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bodies = write_bodies(folder / "decisions.jsonl", TEXTS, decision)
        lines = bodies.read_bytes().splitlines()
        urls = {PLAIN: stack.enter_context(serving(serve_command(threads=2), on, "/ready"))}
        for name, count in SETS.items():
            env = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
            urls[name] = stack.enter_context(serving(_command(count), on, "/ready", env))
        for url in urls.values():
            wrk(f"{url}/v1/decisions", bodies, 0, 3.0, on)
        at = 0
        for _ in range(rounds):
            for name, url in urls.items():
                settle()
                waits.setdefault(name, []).extend(
                    _alone(url, [lines[(at + i) % TEXTS] for i in range(singles)])
                )
                loads.setdefault(name, []).append(
                    wrk(f"{url}/v1/decisions", bodies, at + singles, seconds, on)
                )
            at = (at + singles + max(load[-1].requests for load in loads.values())) % TEXTS
    return _figures(waits, loads)


def _command(replicas: int) -> list[str]:
    return [
        sys.executable, "-m", "deploy.ray", "{port}", f"replicas={replicas}", "cpus=0.5",
        "ingress_cpus=0.1", f"threads={2 // replicas}", f"library={LIBRARY}",
        "allow_anonymous=true",
    ]  # fmt: skip


def _alone(url: str, bodies: list[bytes]) -> list[float]:
    """Milliseconds of requests, one after another."""
    waits: list[float] = []
    with httpx.Client(base_url=url, headers={"Content-Type": "application/json"}) as client:
        for body in bodies:
            begun = time.perf_counter()
            client.post("/v1/decisions", content=body).raise_for_status()
            waits.append((time.perf_counter() - begun) * 1e3)
    return waits


def _figures(waits: dict[str, list[float]], loads: dict[str, list[Load]]) -> list[Figure]:
    alone = {name: median(found) for name, found in waits.items()}
    rates = {name: median(load.rate for load in found) for name, found in loads.items()}
    return [
        reported("proxy, ingress and relay: added to a single request, p50 ms",
                 alone["one replica"] - alone[PLAIN]),
        *(reported(f"{name} / one process, throughput", rates[name] / rates[PLAIN])
          for name in SETS),
        *(reported(f"{name}: a single request, p50 ms", ms) for name, ms in alone.items()),
        *(reported(f"{name}: 64 connections, requests/s", rate) for name, rate in rates.items()),
        *(reported(f"{name}: 64 connections, p99 ms", median(load.p99_ms for load in found))
          for name, found in loads.items()),
    ]  # fmt: skip
