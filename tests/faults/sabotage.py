"""Faults inside a server's own process, set up in it before it serves (`begin(before=...)`)."""

from __future__ import annotations

import ctypes
import os
import resource
import time
from collections.abc import Sequence
from typing import Any

import psutil

from server.engine.generation.loop import GenerationLoop
from server.engine.messages import Sample
from server.engine.queue import Result
from server.engine.run import Engine
from server.engine.work import Work
from server.listener import Listener

DEADLY, HEAVY, SHORT = "deadly", "heavy", "short"
"""Inputs that end the engine's thread, that memory has no room for, and that leave it little."""


def engine_that_dies() -> None:
    """Of an input, as only a fault of the interpreter or of a library could."""
    run = Engine.run

    def sabotaged(self: Engine, samples: Sequence[Sample]) -> list[Result]:
        inputs = [sample.input for sample in samples]
        if DEADLY in inputs:
            raise SystemExit("sabotage")
        if HEAVY in inputs:
            raise MemoryError
        return run(self, samples)

    Engine.run = sabotaged  # type: ignore[method-assign]


def memory_that_is_short() -> None:
    """In the passes of inputs "short 512 ...": so many KiB are left for tensors, and no more.

    Only there: what is written in Rust (tokenizers, pydantic) ends a process that has no memory.
    """
    predict = Engine._predict

    def sabotaged(self: Engine, asked: Sequence[Work], *more: Any) -> None:
        texts = [work.sample.input.split() for work in asked]
        room = min((int(words[1]) for words in texts if words[0] == SHORT), default=None)
        if room is not None:
            most = psutil.Process().memory_info().vms + (room << 10)
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        try:
            predict(self, asked, *more)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

    Engine._predict = sabotaged  # type: ignore[method-assign]


def end_at_once() -> None:
    """On SIGTERM, whatever is under way; and passes are slow, so that something is."""
    run = Engine.run

    def slowly(self: Engine, samples: Sequence[Sample]) -> list[Result]:
        time.sleep(0.2)
        return run(self, samples)

    async def sabotaged(*_: object, **__: object) -> None:
        os._exit(0)

    Engine.run = slowly  # type: ignore[method-assign]
    Listener.shutdown = sabotaged  # type: ignore[method-assign]


def writing_that_dies() -> None:
    """In the middle of a text."""
    step, steps = GenerationLoop._step, 0

    def sabotaged(self: GenerationLoop, out: object) -> None:
        nonlocal steps
        steps += bool(self.batch.rows)
        if steps > 20:
            raise SystemExit("sabotage")
        step(self, out)  # type: ignore[arg-type]

    GenerationLoop._step = sabotaged  # type: ignore[method-assign]


def without_privileges() -> None:
    """Root to whom the permissions of files apply: all its capabilities are dropped."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the version of the call, and this process
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")
