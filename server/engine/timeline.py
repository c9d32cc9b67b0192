"""When the stages of a request began and ended, noted for whoever will show them.

Off unless somebody opens a timeline around the request; then what serves it, in the same context,
adds to it. Knows nothing of how it is shown. Times are of `time.perf_counter`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from server.engine.messages import Outcome, Sample, Stage

R = TypeVar("R")


class Queued(Protocol):
    """Samples, and when they entered the engine's queue; `server.engine.queue.Job` is one."""

    samples: Sequence[Sample]
    entered: float


@dataclass(eq=False)
class Timeline:
    """What is known of one request.

    Attributes:
        stages: in no order; samples of other requests may share them. outcomes: of its samples.
        tokens: written. first_at: when the first of them came.
    """

    stages: list[Stage] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    tokens: int = 0
    first_at: float | None = None

    def submitted(self, job: Queued, results: Sequence[object]) -> None:
        """Add what became of a job, from the writing of its instructions on."""
        entered = job.entered
        if writing := max((s.writing_ms for s in job.samples), default=0.0):
            self.stages.append(Stage("instruction", entered - writing / 1000, entered))
        outcomes = [result for result in results if isinstance(result, Outcome)]
        passes = {id(o.stages): o.stages for o in outcomes if o.stages}  # one a batch
        if passes:
            begun = min(stages[0].begun for stages in passes.values())
            self.stages.append(Stage("queue", entered, begun))
        for stages in passes.values():
            self.stages += stages
        self.outcomes += outcomes

    def wrote(self, tokens: int) -> None:
        """Add tokens that have just come."""
        if tokens and self.first_at is None:
            self.first_at = time.perf_counter()
        self.tokens += tokens


TIMELINE: ContextVar[Timeline | None] = ContextVar("timeline", default=None)
"""Of the request that is being served in this context, if anybody wants it."""


def noted(results: Sequence[R], job: Queued) -> list[R | Outcome]:
    """The results of a job, once the timeline has been told of it.

    Those of which all is to be told have what came before their batch among their stages.
    """
    if (timeline := TIMELINE.get()) is not None:
        timeline.submitted(job, results)
    return [
        replace(result, stages=(*_before(sample, job.entered, result.stages), *result.stages))
        if isinstance(result, Outcome) and sample.options.listens
        else result
        for sample, result in zip(job.samples, results, strict=True)
    ]


def _before(sample: Sample, entered: float, stages: Sequence[Stage]) -> list[Stage]:
    """What came before the batch of a sample: its instruction being written, then the queue."""
    begun = stages[0].begun if stages else entered
    written = [Stage("instruction", entered - sample.writing_ms / 1000, entered)]
    return [*(written if sample.writing_ms else ()), Stage("queue", entered, begun)]
