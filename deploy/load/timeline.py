"""What happened in every second of a run, as JSON lines: counts, latencies, the client's own state.

Latencies are counted in buckets 2% apart, so that a file of any length stays small and percentiles
of any span can be told from it. Knows no locust.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

STEP = math.log(1.02)
FLOOR_MS = 0.1
OUTCOMES = ("answered", "refused", "failed")
"""Right answers and expected errors; 503 or 429 with Retry-After where it may come; all else."""


def bucket(milliseconds: float) -> int:
    """The number of a latency's bucket."""
    return max(0, round(math.log(max(milliseconds, FLOOR_MS) / FLOOR_MS) / STEP))


def milliseconds(bucket: int) -> float:
    """The latency that a bucket stands for."""
    return FLOOR_MS * math.exp(bucket * STEP)


def percentile(counts: Mapping[int, int], share: float) -> float:
    """The latency below which this share of the counted ones lies; nan where there are none."""
    left = share * sum(counts.values())
    for number in sorted(counts) if left else ():
        left -= counts[number]
        if left <= 0:
            return milliseconds(number)
    return math.nan


def merged(seconds: Iterable[Mapping[str, Any]], outcome: str = "answered") -> Counter[int]:
    """The latencies of several lines together."""
    total: Counter[int] = Counter()
    for second in seconds:
        total.update({int(b): n for b, n in second["latency"][outcome].items()})
    return total


class Timeline:
    """Counts requests by the second in which they ended, and writes each second once it is over.

    Args:
        path: the file. own: told at the end of each second, what else to note of it.
    """

    def __init__(self, path: Path, own: Callable[[], Mapping[str, float]] = dict) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._own = own
        self._lock = threading.Lock()
        self._begin(int(time.time()))

    def add(self, name: str, outcome: str, milliseconds: float, now: float | None = None) -> None:
        """Count a request that has just ended."""
        with self._lock:
            self._until(int(time.time() if now is None else now))
            self._latency[outcome][bucket(milliseconds)] += 1
            self._names[name, outcome] += 1

    def tick(self, now: float | None = None) -> None:
        """Write what is over, although nothing may have come."""
        with self._lock:
            self._until(int(time.time() if now is None else now))

    def close(self) -> None:
        """Write the last second, which was not whole."""
        with self._lock:
            self._write()
            self._file.close()

    def _until(self, second: int) -> None:
        while self._second < second:
            self._write()
            self._begin(self._second + 1)

    def _begin(self, second: int) -> None:
        self._second = second
        self._latency = {outcome: Counter[int]() for outcome in OUTCOMES}
        self._names: Counter[tuple[str, str]] = Counter()

    def _write(self) -> None:
        line = {
            "second": self._second,
            **{outcome: sum(self._latency[outcome].values()) for outcome in OUTCOMES},
            "latency": self._latency,
            "names": {f"{name}|{outcome}": n for (name, outcome), n in self._names.items()},
            **self._own(),
        }
        self._file.write(json.dumps(line) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, but for a last one that was cut off."""
    lines: list[dict[str, Any]] = []
    for line in path.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines
