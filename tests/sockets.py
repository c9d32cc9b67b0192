"""Apps on real sockets, in a thread of this process, that must end when they are told to."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

ENDING = 20.0
"""Seconds in which a server that nobody asks any more has ended."""


@dataclass
class Served:
    """An app's server, and where it listens: `host:port`."""

    address: str
    server: uvicorn.Server

    @property
    def url(self) -> str:
        """What a client puts before its paths."""
        return f"http://{self.address}"


@contextmanager
def on_socket(app: Any, **options: Any) -> Iterator[Served]:
    """Serve an app; `options` are uvicorn's.

    Raises:
        AssertionError: it did not end; with what each of its tasks waits for.
    """
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, **options))
    loops: list[asyncio.AbstractEventLoop] = []

    def serve() -> None:
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            loops.append(runner.get_loop())
            runner.run(server.serve([listener]))

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        try:
            yield Served(f"127.0.0.1:{listener.getsockname()[1]}", server)
        finally:
            server.should_exit = True
            thread.join(ENDING)
        assert not thread.is_alive(), waiting_in(loops[0])


@contextmanager
def client_of(app: Any, **options: Any) -> Iterator[httpx.Client]:
    """A client, that waits up to a minute, of an app that is served as `on_socket` does."""
    with (
        on_socket(app, **options) as served,
        httpx.Client(base_url=served.url, timeout=60) as client,
    ):
        yield client


def waiting_in(loop: asyncio.AbstractEventLoop) -> str:
    """The stack of every task of a loop in another thread."""
    told = io.StringIO()
    for task in asyncio.all_tasks(loop):
        task.print_stack(file=told)
    return told.getvalue()
