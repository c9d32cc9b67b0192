"""Real servers in processes of their own, quick to start, so that many can be killed.

Most are forked from a process that has imported everything: a start takes half a second, and from
there on all is as by the console script. `scripted` starts that script itself.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
START = 120.0
"""Seconds that a start may take on a busy machine."""
END = 60.0
PRELOADED = ("server.cli.serve", "server.build", "server.listener", "uvicorn", "uvloop",
             "httptools", "tests.faults.warm")  # fmt: skip
ADDRESS = re.compile(r"at (http://127\.0\.0\.1:\d+)")


@dataclass
class Server:
    """A server that was started, and how to reach it.

    Attributes:
        pid: of its process. log: what it wrote. ended: its exit code, waiting so many seconds for
            one; None while it runs.
    """

    pid: int
    log: Path
    ended: Callable[[float], int | None]
    address: str = ""

    @property
    def said(self) -> str:
        """All that it wrote."""
        return self.log.read_text("utf-8", "replace")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])

    @property
    def seen(self) -> psutil.Process:
        """Its process, to be looked at."""
        return psutil.Process(self.pid)

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens where it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        assert self.ended(END) is not None

    def stop(self) -> int:
        """End it by SIGTERM; its exit code."""
        self.signal(signal.SIGTERM)
        code = self.ended(END)
        assert code is not None, f"it did not end:\n{self.said[-3000:]}"
        return code

    def wait_until_ready(self) -> Server:
        """Wait until it answers; fails where it ends, or takes too long."""
        until = time.monotonic() + START
        while time.monotonic() < until:
            code = self.ended(0)
            assert code is None, f"it ended by {code} while starting:\n{self.said[-3000:]}"
            if not self.address and (found := ADDRESS.search(self.said)):
                self.address = found[1]
            with suppress(httpx.TransportError):
                if self.address and httpx.get(f"{self.address}/ready").is_success:
                    return self
            time.sleep(0.02)
        raise AssertionError(f"it is not ready:\n{self.said[-3000:]}")


def begin(
    folder: Path, *options: str, env: Mapping[str, str] | None = None, before: str = ""
) -> Server:
    """Start a server in `folder` on a free port, and don't wait for it.

    Args:
        env: added to its environment. before: "module:function" to be called there first.
    """
    os.environ["PYTHONPATH"] = str(ROOT)  # what the parent of all imports is this tree
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    log = folder / f"server-{time.monotonic_ns()}.log"
    log.touch()
    arguments = _arguments(options)
    process = context.Process(target=_serve, args=(arguments, folder, log, dict(env or {}), before))
    process.start()
    assert process.pid is not None

    def ended(seconds: float) -> int | None:
        process.join(seconds)
        return process.exitcode

    return Server(process.pid, log, ended)


def begin_script(folder: Path, *options: str, env: Mapping[str, str] | None = None) -> Server:
    """The same by the console script's module, in a new interpreter."""
    log = folder / f"server-{time.monotonic_ns()}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", "from server.cli import app; app()", *_arguments(options)],
            cwd=folder, stdout=out, stderr=out,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )  # fmt: skip

    def ended(seconds: float) -> int | None:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    return Server(process.pid, log, ended)


@contextmanager
def serving(
    folder: Path, *options: str, env: Mapping[str, str] | None = None, before: str = "",
    script: bool = False,
) -> Generator[Server]:  # fmt: skip
    """A server that is ready, until the context ends; see `begin`."""
    if script:
        server = begin_script(folder, *options, env=env)
    else:
        server = begin(folder, *options, env=env, before=before)
    try:
        yield server.wait_until_ready()
    finally:
        server.kill()


def _arguments(options: Sequence[str]) -> list[str]:
    backbone = () if "--backbone" in options else ("--backbone", "tiny-random")
    return ["serve", "--port", "0", "--threads", "1", *backbone, *options]


def _serve(
    arguments: list[str], folder: Path, log: Path, env: Mapping[str, str], before: str
) -> None:
    """What the forked process does: as the console script, its words into `log`."""
    os.chdir(folder)
    os.environ.update(env)
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if before:
        module, _, name = before.partition(":")
        getattr(import_module(module), name)()
    from server.cli import app

    app(arguments)
