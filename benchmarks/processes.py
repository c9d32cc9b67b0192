"""Processes under measurement: servers, the wrk client and in-process workers, pinned to cores.

Knows how to start, wait for and stop them; not what their figures mean.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

CONNECTIONS = 64
CLIENT = Path(__file__).with_name("client.lua")
STARTING, STOPPING = 300.0, 30.0  # seconds


class BenchmarkError(RuntimeError):
    """A benchmark cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Load:
    """What the client saw in one run."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def cores(count: int) -> list[int]:
    """The first cores this process may use.

    Raises:
        BenchmarkError: there are fewer.
    """
    free = sorted(os.sched_getaffinity(0))
    if len(free) < count:
        raise BenchmarkError(f"This benchmark needs {count} cores and may use {len(free)}.")
    return free[:count]


def require(tool: str, package: str) -> None:
    """Say how to install a tool that is not here.

    Raises:
        BenchmarkError: it is not.
    """
    if shutil.which(tool) is None:
        raise BenchmarkError(f"{tool} is missing: apt-get install -y {package}")


@contextmanager
def serving(
    command: Sequence[str], on: Sequence[int], ready: str, env: Mapping[str, str] | None = None
) -> Generator[str]:
    """A server on a free port and these cores, until the context ends: its address.

    Args:
        command: "{port}" in it is replaced. on: cores. ready: the path that answers 200 once it
            serves. env: added to the environment.

    Raises:
        BenchmarkError: it ended, or was not ready in time.
    """
    url = f"http://127.0.0.1:{(port := _free_port())}"
    told = [part.replace("{port}", str(port)) for part in command]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            pinned(told, on), stdout=log, stderr=log, env={**os.environ, **(env or {})}
        )
        try:
            if not _wait_until_ready(process, url + ready):
                log.seek(0)
                raise BenchmarkError(f"{told[0]} did not start:\n{log.read()[-2000:]}")
            yield url
        finally:
            stop(process)


def wrk(
    url: str, bodies: Path, at: int, seconds: float, on: Sequence[int],
    connections: int = CONNECTIONS,
) -> Load:  # fmt: skip
    """Keep connections busy with the lines of `bodies`, from line `at` on.

    Raises:
        BenchmarkError: a request failed: such a run says nothing about speed.
    """
    command = [
        "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s",
        "-s", str(CLIENT), url, "--", str(bodies), str(at),
    ]  # fmt: skip
    done = subprocess.run(pinned(command, on), capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"wrk failed: {done.stderr or done.stdout}")
    load = Load(**json.loads(done.stdout.splitlines()[-1]))
    if load.errors:
        raise BenchmarkError(f"{load.errors} of {load.requests} requests to {url} failed.")
    if not load.requests:
        raise BenchmarkError(f"{url} answered nothing in {seconds:g} s: is the machine busy?")
    return load


class Worker:
    """`benchmarks.worker` in a process of its own, asked for one measurement at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def rate(self, **asked: object) -> float:
        """Samples per second of one measurement."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise BenchmarkError("The in-process worker ended; its own message is above.")
        return float(line)


@contextmanager
def working(subject: str, on: Sequence[int]) -> Generator[Worker]:
    """A worker on these cores, with as many threads."""
    command = [sys.executable, "-m", "benchmarks.worker", subject, str(len(on))]
    env = {
        **os.environ,
        "OMP_NUM_THREADS": str(len(on)),
        "OMP_WAIT_POLICY": "PASSIVE",  # as `sailplane serve` sets it
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    process = subprocess.Popen(
        pinned(command, on), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        yield Worker(process)
    finally:
        stop(process)


def pinned(command: Sequence[str], on: Sequence[int]) -> list[str]:
    """The command, kept on these cores."""
    return ["taskset", "-c", ",".join(map(str, on)), *command]


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> bool:
    until = time.monotonic() + STARTING
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(url).status_code == 200:
                return True
        except httpx.TransportError:  # it does not listen yet
            pass
        time.sleep(0.2)
    return False


def stop(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End a process: asked at first, killed if it does not listen."""
    process.terminate()
    try:
        process.wait(STOPPING)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
