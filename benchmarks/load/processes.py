"""The server under load, watched from outside, and locust, which loads it.

The server has all cores but one, and locust that one, so that neither takes the other's time.
Knows how to run them; not what is to be measured.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.load.arithmetic import timeline
from benchmarks.places import LIBRARY, ROOT
from benchmarks.processes import BenchmarkError, pinned, serving

LOCUSTFILE = ROOT / "deploy" / "load" / "locustfile.py"
READ_METRICS = 5
"""Every so many seconds: to write them costs the server a few milliseconds."""
SAMPLES = re.compile(r"^sailplane_batch_samples_sum (\S+)$", re.MULTILINE)
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
FAILED = 1
"""Locust's exit code where a request failed."""


@dataclass(frozen=True)
class Server:
    """A server that runs, and where it may be given adapters."""

    url: str
    pid: int
    adapter: Path


def split_cores() -> tuple[list[int], int]:
    """The server's cores, and the client's.

    Raises:
        BenchmarkError: there is one alone.
    """
    free = sorted(os.sched_getaffinity(0))
    if len(free) < 2:
        raise BenchmarkError("Load needs two cores: one is the client's.")
    return free[:-1], free[-1]


@contextmanager
def server(*options: str) -> Generator[Server]:
    """A fresh server over a copy of the demo library, with a routing log and an adapter to add."""
    on, _ = split_cores()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        library, adapter = folder / "library", folder / "adapters" / "one"
        shutil.copytree(LIBRARY, library, ignore=shutil.ignore_patterns(".*"))
        adapter.mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(LIBRARY / "tweet_stance" / name, adapter)
        command = [
            str(Path(sys.executable).with_name("sailplane")), "serve", "--port", "{port}",
            "--library", str(library), "--threads", str(len(on)), "--log-level", "warning",
            "--adapter-root", str(adapter.parent), "--routing-log", str(folder / "routing.jsonl"),
            *options,
        ]  # fmt: skip
        with serving(command, on, "/ready") as url:
            yield Server(url, _listener(url), adapter)


def _listener(url: str) -> int:
    """The process that listens there: taskset has become the server itself."""
    port = url.rpartition(":")[2]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if b"serve" in words and port.encode() in words:
            return int(entry.parent.name)
    raise BenchmarkError(f"Nothing serves at {url}.")


@contextmanager
def watched(under: Server, path: Path) -> Generator[None]:
    """Write the server's memory and CPU every second to a file of JSON lines, and its samples."""
    ended = threading.Event()

    def watch() -> None:
        with path.open("a", encoding="utf-8", buffering=1) as file:
            count = 0
            while not ended.wait(1.0):
                reading = _reading(under, count % READ_METRICS == 0)
                file.write(json.dumps(reading) + "\n")
                count += 1

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _reading(under: Server, metrics: bool) -> dict[str, float]:
    reading = {"time": time.time(), "busy": _busy()}
    try:
        proc = Path(f"/proc/{under.pid}")
        pages = int((proc / "statm").read_text().split()[1])
        spent = (proc / "stat").read_text().rpartition(")")[2].split()
        reading |= {"rss": pages * PAGE, "cpu": (int(spent[11]) + int(spent[12])) / TICKS}
        if metrics:
            told = SAMPLES.search(httpx.get(f"{under.url}/metrics", timeout=30).text)
            reading |= {"time": time.time(), "samples": float(told[1]) if told else 0.0}
    except (OSError, httpx.HTTPError):  # it is gone, or too busy: the next reading tells
        pass
    return reading


def _busy() -> float:
    """Seconds of CPU that all processes of the machine have used, and that others took from it."""
    user, nice, system, _, _, irq, softirq, steal, *_ = (
        int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def locust(
    under: Server, folder: Path, name: str, seconds: float, *options: str, users: int = 1
) -> list[dict[str, Any]]:
    """Run locust without its web page; what happened in every second.

    Args:
        users: that ask, beside the operator. options: further ones of the locustfile.

    Raises:
        BenchmarkError: it could not run at all. Failed requests are in what it returns.
    """
    _, core = split_cores()
    lines = folder / f"{name}.jsonl"
    command = [
        str(Path(sys.executable).with_name("locust")), "-f", str(LOCUSTFILE), "--headless",
        "--host", under.url, "--users", str(users + 1), "--spawn-rate", "100",
        "--run-time", f"{seconds:g}s", "--stop-timeout", "60", "--adapter", str(under.adapter),
        "--timeline", str(lines), "--csv", str(folder / name), "--only-summary", *options,
    ]  # fmt: skip
    done = subprocess.run(pinned(command, [core]), capture_output=True, text=True)
    (folder / f"{name}.log").write_text(done.stdout + done.stderr, "utf-8")
    if done.returncode not in (0, FAILED) or not lines.exists():
        raise BenchmarkError(f"locust ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return timeline.read(lines)


def readings(path: Path) -> Sequence[Mapping[str, float]]:
    """What `watched` wrote."""
    return timeline.read(path)
