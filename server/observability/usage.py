"""How often each expert was selected since the server started, and when last.

What `/metrics` counts under a few labels, for all experts: a number and a time for each version
(`id@version`) that was ever chosen, so that no expert takes over what another of its name counted.
Knows nothing of who asked.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Used:
    """`last`: seconds since the epoch; None where an expert was not used yet."""

    times: int = 0
    last: float | None = None


NEVER = Used()


class Usage:
    """Of all experts."""

    def __init__(self) -> None:
        self._used: dict[str, Used] = {}

    def note(self, refs: Iterable[str]) -> None:
        """Count experts that one sample was given."""
        now = time.time()
        for ref in refs:
            self._used[ref] = Used(self.of(ref).times + 1, now)

    def of(self, ref: str) -> Used:
        """What is known of one."""
        return self._used.get(ref, NEVER)
