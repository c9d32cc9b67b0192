"""Faults inside a server's own process, set up in it before it serves (`begin(before=...)`)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from server.engine.generation.loop import GenerationLoop
from server.engine.messages import Sample
from server.engine.queue import Result
from server.engine.run import Engine

DEADLY, HEAVY = "deadly", "heavy"
"""Inputs that end the engine's thread, and that memory has no room for."""


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
