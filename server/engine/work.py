"""One sample on its way through the engine: what each stage left for the next.

Mutable on purpose and private to the engine; the outcome handed out at the end is frozen.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from experts.errors import ExpertError
from routers.catalogue import Catalogue
from routers.instructions import Instruction
from routers.policy import Decision
from routers.presets import Preset
from routers.request import Scores
from routers.types import Query, Selection
from server.engine.messages import Answer, Cut, Sample, Stage, TokenTrace
from server.errors import ServerError


@dataclass(eq=False)
class Work:
    """A sample and what is known of it so far. With an `error`, later stages pass it by."""

    sample: Sample
    error: ExpertError | ServerError | None = None
    tokens: Sequence[int] = ()
    truncated: tuple[Cut, ...] = ()
    generation: str = ""
    query: Query = field(default_factory=Query)
    instruction: Instruction | None = None
    preset: Preset | None = None
    scores: Scores | None = None
    catalogue: Catalogue | None = None
    decision: Decision | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()
    state_D: Tensor | None = None
    answer: Answer | None = None
    token_traces: tuple[TokenTrace, ...] = ()
    spelled: tuple[str, ...] = ()
    written: int = 0

    @property
    def selection(self) -> Selection:
        """What was decided; only after routing."""
        assert self.decision is not None
        return self.decision.selection


class Clock:
    """Milliseconds per stage of one batch, and when each was at work."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self.stages: list[Stage] = []

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Add the time inside the context to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            end = time.perf_counter()
            self.stages.append(Stage(name, start, end))
            spent = (end - start) * 1e3
            self.milliseconds[name] = round(self.milliseconds.get(name, 0.0) + spent, 3)


def alive(board: Sequence[Work]) -> list[Work]:
    """The samples that have not failed."""
    return [w for w in board if w.error is None]
