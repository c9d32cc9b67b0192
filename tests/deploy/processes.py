"""Real processes for tests of what an operator runs: Sailplane's servers, and Prometheus.

Each is started on a free port in a folder of its own, and ended with the context.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds; importing torch is most of it
COMMAND = (sys.executable, "-c", "from server.cli import app; app()", "serve")


def require_tool(name: str) -> str:
    """The path of a program of this machine; the test is skipped where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian's package `prometheus` has it)")
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def sailplane(folder: Path, options: Sequence[str], **environment: str) -> Iterator[str]:
    """A server with these options: its address, once it is ready."""
    address = f"127.0.0.1:{free_port()}"
    command = [*COMMAND, *options, "--port", address.split(":")[1]]
    env = {
        **os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": str(ROOT), **environment,
    }  # fmt: skip
    with running(command, folder, f"http://{address}/ready", env):
        yield address


@contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[str]:
    """Prometheus with this configuration: its address, once it is ready."""
    address = f"127.0.0.1:{free_port()}"
    command = [
        require_tool("prometheus"), f"--config.file={config}", f"--web.listen-address={address}",
        f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=warn",
    ]  # fmt: skip
    with running(command, folder, f"http://{address}/-/ready"):
        yield address


@contextmanager
def running(
    command: Sequence[str], folder: Path, ready: str, env: dict[str, str] | None = None
) -> Iterator[None]:
    """A process that answers at `ready`; its output goes to a file, told if it ends too soon."""
    output = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: is_ready(process, ready, output), PATIENCE, f"{ready} never answered")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_ready(process: subprocess.Popen[bytes], address: str, output: Path) -> bool:
    assert process.poll() is None, f"it ended while starting:\n{output.read_text()}"
    try:
        return httpx.get(address).is_success
    except httpx.TransportError:
        return False


def wait_for(done: Callable[[], bool], seconds: float, failure: str) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, failure
        time.sleep(0.1)
