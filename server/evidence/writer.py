"""Writes the routing log: JSON lines in files that are rotated, off the event loop.

Handing a line over costs one put on a bounded queue; a thread makes the JSON and writes it. A line
that cannot be written is counted and lost: no request waits for the log, and none fails for it.
One server writes one file: two of them would rotate it under each other.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from logging.handlers import QueueListener, RotatingFileHandler
from pathlib import Path
from typing import Any, cast

from experts.scope import EVERYTHING, Scope
from server.evidence.record import AnyLine, RoutedLine

WAITING = 10_000
"""Requests that may wait to be written; what comes on top is lost."""
KEPT = 200
"""Newest lines that stay in memory, to be shown."""
PAUSE = 0.05
"""Seconds in which lines gather: a thread that woke for each would take turns with the server's."""
Lines = Callable[[], Iterable[AnyLine]]
Lost = Callable[[str], object]

log = logging.getLogger("sailplane.evidence")


class RoutingLog:
    """The log of one server.

    Args:
        path: the file written to; full ones are `path.1` (the newest), `path.2`, ...
        max_bytes: size of a file before the next is begun. files: full files kept.
        on_lost: told why lines were lost, once for each request or line: `queue_full`, or
            `not_written`.

    Raises:
        OSError: the file cannot be opened for writing.
    """

    def __init__(
        self, path: Path, max_bytes: int, files: int, *,
        on_lost: Lost = lambda reason: None, waiting: int = WAITING,
    ) -> None:  # fmt: skip
        self.path, self._lost = path, on_lost
        self._queue: queue.Queue[object] = queue.Queue(waiting)
        _end_torn_line(path)
        self._file = _File(path, max_bytes, files, on_lost)
        self._listener = _Listener(self._queue, self._file, on_lost)
        self._running = False

    @property
    def recent(self) -> list[tuple[Scope, RoutedLine]]:
        """The newest lines of samples, newest first, and what their callers might use."""
        return list(self._listener.newest)

    def start(self) -> None:
        """Begin to write."""
        self._listener.start()
        self._running = True

    def write(self, lines: Lines, scope: Scope = EVERYTHING) -> bool:
        """Hand lines over.

        Args:
            lines: makes the lines; called in the writer's thread. scope: of whose request they are.

        Returns:
            Whether they will be written; False where too many wait already.
        """
        try:
            self._queue.put_nowait((lines, scope))
        except queue.Full:
            self._lost("queue_full")
            return False
        return True

    def close(self) -> None:
        """Write all that waits, and close the file. Blocks."""
        if self._running:
            self._running = False
            self._listener.stop()
        with suppress(OSError):  # a full disk: its lines were counted when they were not written
            self._file.close()


class _File(RotatingFileHandler):
    """A rotated file whose failures are counted, and told once until it can be written again."""

    def __init__(self, path: Path, max_bytes: int, files: int, on_lost: Lost) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=files, encoding="utf-8")
        self._on_lost, self._failing = on_lost, False

    def flush(self) -> None:
        """As its base; a flush that works ends a run of failures."""
        super().flush()
        self._failing = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Count a line that was not written."""
        self._on_lost("not_written")
        if not self._failing:
            log.exception("the routing log cannot be written")
        self._failing = True


class _Listener(QueueListener):
    """Takes what makes lines off the queue, and hands the lines to the file."""

    def __init__(self, waiting: queue.Queue[object], file: _File, on_lost: Lost) -> None:
        super().__init__(waiting, file)
        self._waiting, self._on_lost = waiting, on_lost
        self.newest: deque[tuple[Scope, RoutedLine]] = deque(maxlen=KEPT)

    def dequeue(self, block: bool) -> Any:
        """The next of what waits; where nothing does, a pause after what comes first."""
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            first = self._waiting.get(block)
            if first is not None:  # nothing comes after the end
                time.sleep(PAUSE)
            return first

    def handle(self, record: object) -> None:
        """Write one request's lines; a fault of ours costs them and not the thread."""
        try:
            make, scope = cast("tuple[Lines, Scope]", record)
            lines = list(make())
            routed = ((scope, line) for line in lines if isinstance(line, RoutedLine))
            self.newest.extendleft(routed)
            if lines:
                text = "\n".join(line.model_dump_json() for line in lines)
                super().handle(logging.makeLogRecord({"msg": text}))
        except Exception:
            self._on_lost("not_written")
            log.exception("lines of the routing log could not be made")

    def enqueue_sentinel(self) -> None:
        """Say that this is all; waits for room where the base would fail."""
        self._waiting.put(None)


def _end_torn_line(path: Path) -> None:
    """End a line that a killed writer left half written, so that the next stands alone."""
    with suppress(FileNotFoundError), path.open("r+b") as file:
        if file.seek(0, 2):
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
