"""A local Ray cluster in this process, and the application on it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[3]
START = 180.0
QUIET = {
    "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip


@dataclass
class Set:
    """An application that runs: an address, and processes behind it."""

    address: str

    def pids(self) -> list[int]:
        """Of the replicas that are there."""
        from ray import serve

        handle = serve.get_deployment_handle("Replica", "default")
        with suppress(Exception):
            told = handle.broadcast("pid").results(timeout_s=10, return_exceptions=True)
            return [pid for pid in told if isinstance(pid, int)]
        return []

    def wait_for(self, count: int) -> list[int]:
        """Wait for so many replicas; their processes."""
        until = time.monotonic() + START
        while len(pids := self.pids()) != count:
            assert time.monotonic() < until, f"{len(pids)} replicas, and not {count}"
            time.sleep(0.2)
        return pids

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a replica a signal."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.address, **{"timeout": 60, **options})


@contextmanager
def cluster(cores: int = 4) -> Iterator[str]:
    """Ray and Serve, until the context ends; the address that Serve listens on."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    serve = pytest.importorskip("ray.serve", reason="the extra `ray` is not installed")
    before = dict(os.environ)
    os.environ.update(QUIET)
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # sockets' paths must be short
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    try:
        ray.init(
            "local", num_cpus=cores, include_dashboard=False, object_store_memory=100 << 20,
            _temp_dir=folder, logging_level="error", log_to_driver=False,
        )  # fmt: skip
        serve.start(http_options={"host": "127.0.0.1", "port": port}, proxy_location="HeadOnly")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)


def options(library: Path, **more: Any) -> dict[str, Any]:
    """Options of a small set of replicas."""
    return {
        "library": str(library), "backbone": "tiny-random", "allow_anonymous": True, "cpus": 0.5,
        "ingress_cpus": 0.1, "health_seconds": 0.5, "drain_seconds": 10, **more,
    }  # fmt: skip


def run(address: str, given: dict[str, Any]) -> Set:
    """The application with these options, in the place of any that runs."""
    from ray import serve

    from deploy.ray.app import build

    serve.run(build(given))
    return Set(address)
