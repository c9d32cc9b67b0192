"""Real servers for the browser: processes over copies of the demo libraries."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[3]
SAILPLANE = [sys.executable, "-c", "import sys; sys.argv[0] = 'sailplane'; "
             "from server.cli import app; app()"]  # fmt: skip


@dataclass
class Server:
    """One server, which may be stopped and started again at its port."""

    url: str
    folder: Path
    library: Path
    adapters: Path
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it serves."""
        log = (self.folder / "server.log").open("ab")
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, stdout=log, stderr=log, env=env
        )
        end = time.monotonic() + 180  # ten thousand experts take a while to read
        while time.monotonic() < end:
            try:
                if httpx.get(f"{self.url}/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text("utf-8")[-3000:])

    def stop(self) -> None:
        """As an operator stops it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.process = None


@contextmanager
def serving(folder: Path, *options: str, library: str | Path = "minilm") -> Iterator[Server]:
    """A server over a copy of one of the repository's libraries, or over the folder of another."""
    source = ROOT / "library" / library
    served = source if source == Path(library) else folder / "library"
    if served != source:
        shutil.copytree(source, served, ignore=shutil.ignore_patterns(".*"))
    adapters = folder / "adapters"
    adapters.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    writes = (served / "sailplane.toml").exists()
    command = [
        *SAILPLANE, "serve", "--port", str(port), "--library",
        str(served) if served == source else served.name,
        "--adapter-root", str(adapters), "--linger-seconds", "0", "--routing-log",
        str(folder / "routing.jsonl"), "--log-level", "warning",
        *(("--backbone", str(served / "byte-llama-3m"), "--embedder", "demo") if writes else ()),
        *options,
    ]  # fmt: skip
    server = Server(f"http://127.0.0.1:{port}", folder, served, adapters, command)
    server.start()
    try:
        yield server
    finally:
        server.stop()
