"""Runs a batch: keeps the engine's queue filled with lines of like length, and writes as they end.

The engine computes in its own thread meanwhile. Answers come as they are finished, which is the
order of the input within a few thousand lines.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from server.api.context import Context
from server.batch.lines import OK, Line, Reply, answer, refuse
from server.batch.plan import Task
from server.engine.fitting import Fits
from server.engine.service import EngineService

WINDOW = 64
"""Batches whose lines are sorted by length together."""
WINDOW_BYTES = 64 << 20
"""About what the inputs of a window may take in memory."""
AHEAD = 4
"""Batches that are on their way at a time: enough to keep the engine busy, little to lose."""


@dataclass
class Tally:
    """What a run has done so far: lines answered, codes of those that failed, samples."""

    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter[str])
    samples: int = 0

    def add(self, reply: Reply) -> None:
        """Count a line."""
        self.samples += reply.samples
        if reply.status == OK:
            self.answered += 1
        else:
            self.failed[reply.code or ""] += 1


class Gate:
    """Lets a line in while fewer than `limit` samples are inside, however many it brings."""

    def __init__(self, limit: int) -> None:
        self.limit, self.inside = limit, 0
        self._room = asyncio.Event()

    async def enter(self, samples: int) -> None:
        """Wait until there is room."""
        while self.inside >= self.limit:
            self._room.clear()
            await self._room.wait()
        self.inside += samples

    def leave(self, samples: int) -> None:
        """Make room."""
        self.inside -= samples
        self._room.set()


async def run_batch(
    service: EngineService, tasks: Iterable[Task], put: Callable[[Reply], None]
) -> None:
    """Answer the tasks and hand over each reply once; starts the service and drains it.

    Raises:
        Unavailable: the engine has stopped. BatchFileError, OSError: what `tasks` or `put` raised.
    """
    await service.start()
    try:
        await _answer_all(Context(service, Fits(service.engine, service.change)), tasks, put)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await service.drain()


async def _answer_all(ctx: Context, tasks: Iterable[Task], put: Callable[[Reply], None]) -> None:
    batch = ctx.service.max_batch
    gate = Gate(AHEAD * batch)

    async def one(id: str, line: Line) -> None:
        try:
            put(await answer(ctx, line, id))
        finally:
            gate.leave(line.samples)

    async with asyncio.TaskGroup() as group:
        for window in windows(tasks, WINDOW * batch):
            for task in window:
                if isinstance(task.line, Line):
                    await gate.enter(task.line.samples)
                    group.create_task(one(task.id, task.line))
                else:
                    put(refuse(task.line, task.id))


def windows(tasks: Iterable[Task], count: int) -> Iterator[list[Task]]:
    """The tasks in lists of up to `count`, each sorted by the length of their inputs."""
    window, size = list[Task](), 0
    for task in tasks:
        window.append(task)
        size += _length(task)
        if len(window) >= count or size >= WINDOW_BYTES:
            yield sorted(window, key=_length)
            window, size = [], 0
    yield sorted(window, key=_length)


def _length(task: Task) -> int:
    return task.line.length if isinstance(task.line, Line) else 0
