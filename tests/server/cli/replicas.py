"""Real servers on one library, and what is asked of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from experts.backbones.tiny import tiny_encoder
from tests.server.cli.conftest import write
from tests.server.cli.test_public import free_port
from tests.server.cli.test_serve import ROOT, wait_until_ready

SCAN_SECONDS = 0.5
PATIENCE = 30.0


@dataclass(frozen=True)
class Replica:
    """One server, by its process and a client."""

    process: subprocess.Popen[bytes]
    client: httpx.Client

    def get(self, path: str) -> dict:
        return self.client.get(path).raise_for_status().json()

    @property
    def generation(self) -> str:
        return self.get("/v1/experts")["generation"]

    @property
    def ids(self) -> set[str]:
        return {each["id"] for each in self.get("/v1/experts")["data"]}

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Place:
    """Where the library is, and adapters that can be added to it."""

    library: Path
    inbox: Path

    def source(self, name: str) -> str:
        return str(self.inbox / name)


def make_place(folder: Path) -> Place:
    """A library of two experts, and two adapters beside it."""
    tiny = tiny_encoder()
    for id in ("mood", "weather"):
        write(folder / "library", id, tiny)
    for id in ("one", "two"):
        write(folder / "inbox", id, tiny)
    return Place(folder / "library", folder / "inbox")


@contextmanager
def replicas(
    place: Place, count: int = 2, own: str | None = None, **said: str
) -> Generator[list[Replica]]:
    """Servers on one library, or each on a folder of its `own`, started together."""
    folders = [place.library.with_name(f"{own}-{n}") if own else place.library
               for n in range(count)]  # fmt: skip
    with ExitStack() as stack:
        started = [stack.enter_context(_started(place, folder, said)) for folder in folders]
        for each in started:
            wait_until_ready(each.process, str(each.client.base_url))
        yield started


@contextmanager
def _started(place: Place, library: Path, said: dict[str, str]) -> Generator[Replica]:
    port = free_port()
    settings = {
        "BACKBONE": "tiny-random", "LIBRARY": library, "PORT": port, "THREADS": 1,
        "ADAPTER_ROOTS": place.inbox, "SCAN_SECONDS": SCAN_SECONDS, **said,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", "from server.cli import app; app()", "serve"],
        cwd=place.inbox.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT),
             **{f"SAILPLANE_{name}": str(value) for name, value in settings.items()}},
    )  # fmt: skip
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        try:
            yield Replica(process, client)
        finally:
            process.kill()
            process.wait()


def until(holds: Callable[[], object], seconds: float = PATIENCE) -> float:
    """Wait until something holds; how long that took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds, "it does not come to hold"
        time.sleep(0.02)
    return time.monotonic() - begun
