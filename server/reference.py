"""How set-aside questions are routed, kept in the calibration: what a routing log is compared with.

The questions stand as their task puts them; instructions are in a wording that no expert holds.
Routes only; no expert runs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from experts.manifest import TaskCard
from experts.training.data import Example, Task
from routers.calibration import CONFIDENCE_DIGITS, NO_EXPERT, Calibration, Reference
from routers.presets import DEFAULT
from server.engine.messages import Choice, Outcome, Question, RoutingOptions, Sample, Trace
from server.engine.run import Engine
from server.evidence.figures import quantile
from server.evidence.record import DIGITS, SORTS, Sees

PER_TASK = 60
BATCH = 64


MARKS = (0.5, 0.8, 0.95)
"""Edges beside the deciles: where those crowd near 1, a low confidence must still be told."""


def references(
    engine: Engine,
    constants: Calibration,
    tasks: Sequence[Task],
    cards: Mapping[str, TaskCard],
    told: Callable[[], object] = lambda: None,
) -> dict[str, Reference]:
    """How set-aside questions are routed by these constants, by what the router is given.

    A sort of question that no task can put is left out.

    Args:
        told: called after each sort.
    """
    found = dict[str, Reference]()
    with engine.routing.trying(engine.routing.current().under(constants)):
        for sees in SORTS:
            samples = [
                sample
                for task in tasks
                for example in task.aside[:PER_TASK]
                if (sample := _sample(example, cards[task.name], sees))
            ]
            if samples:
                found[sees] = reference_of(_traces(engine, samples))
            told()
    return found


def reference_of(traces: Sequence[Trace]) -> Reference:
    """What is kept of these traces: shares by deciles of the confidence, and by first expert."""
    confidences = sorted(round(t.confidence or 0.0, CONFIDENCE_DIGITS) for t in traces)
    deciles = {round(quantile(confidences, k / 10), CONFIDENCE_DIGITS) for k in range(1, 10)}
    edges = sorted({*deciles, *MARKS} - {confidences[0]})  # nothing lies below the lowest of all
    held = Counter(bisect_right(edges, confidence) for confidence in confidences)
    first = Counter(t.selection.ids[0] if t.selection.ids else NO_EXPERT for t in traces)
    count = len(traces)
    return Reference(
        count=count,
        edges=tuple(edges),
        shares=tuple(round(held[i] / count, DIGITS) for i in range(len(edges) + 1)),
        first={id: round(n / count, DIGITS) for id, n in sorted(first.items())},
    )


def _sample(example: Example, card: TaskCard, sees: Sees) -> Sample | None:
    """An example as a request gives it to the request router; None where there is no such form."""
    told = card.instruction_unseen or "" if sees in ("instruction", "all") else ""
    if not told and sees in ("instruction", "all"):
        return None
    if example.is_written and sees in ("choices", "all"):
        return None
    choices = tuple(map(Choice, example.options)) if sees in ("choices", "all") else ()
    return Sample(
        example.input,
        Question("choice", told, choices),
        options=RoutingOptions(router=DEFAULT, truncate=True, trace="none"),
        predict=False,
    )


def _traces(engine: Engine, samples: Sequence[Sample]) -> list[Trace]:
    """The traces, in no order: texts of one length go together."""
    ordered = sorted(samples, key=lambda sample: len(sample.input))
    bounds = [*range(0, len(ordered), BATCH), len(ordered)]
    found: list[Trace] = []
    for begin, end in pairwise(bounds):
        for outcome in engine.run(ordered[begin:end]):
            if not isinstance(outcome, Outcome):
                raise outcome
            found.append(outcome.trace)
    return found
