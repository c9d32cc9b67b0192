"""How sure answers are: the temperature by which they are right as often as they say.

Temperature scaling (Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2): of
least negative log-likelihood on questions set aside, as the default router has them answered. It
changes no answer, only its probability. Knows nothing of how that is decided.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from experts.manifest import TaskCard
from experts.training.data import Task
from routers.calibration import TEMPERATURE
from routers.presets import DEFAULT
from server.engine.messages import Outcome
from server.engine.run import Engine
from server.evaluate import Sees, answered, put, sample_of

LEAST, MOST, STEPS = 0.5, 4.0, 85
"""Times the temperature of training; between two steps lie 2.5%."""
SEEN: tuple[Sees, ...] = ("input", "choices")


def fit_temperature(
    engine: Engine, tasks: Sequence[Task], cards: Mapping[str, TaskCard], limit: int,
    told: Callable[[], object] = lambda: None,
) -> float:  # fmt: skip
    """The temperature for the default router's answers; that of training where none is set aside.

    Args:
        limit: questions a task. told: called after each task.
    """
    now, tables = engine.routing.calibration.temperature, list[tuple[torch.Tensor, int]]()
    for task in tasks:
        for sees in SEEN:
            tables += _answers(engine, task, cards.get(task.name), sees, limit)
        told()
    tried = torch.logspace(0, 1, STEPS, base=MOST / LEAST, dtype=torch.float64)
    trials = (LEAST * TEMPERATURE * tried).tolist()
    return round(min(trials, key=lambda t: _loss(tables, now / t)), 4) if tables else TEMPERATURE


def _answers(
    engine: Engine, task: Task, card: TaskCard | None, sees: Sees, limit: int
) -> Iterable[tuple[torch.Tensor, int]]:
    """Log-probabilities (C,) of set-aside questions' choices, and which is right."""
    asked = [put(e, card, sees, random.Random(0), ()) for e in task.aside[:limit]]
    samples = [sample_of(a, DEFAULT, task.name, sees) for a in asked]
    for i, outcome in answered(engine, samples):
        if not isinstance(outcome, Outcome):
            assert isinstance(outcome, Exception)
            raise outcome
        assert outcome.answer is not None
        if outcome.answer.refusal:
            continue
        p_C = torch.tensor(outcome.answer.probabilities, dtype=torch.float64)
        yield p_C.clamp(min=torch.finfo(p_C.dtype).tiny).log(), asked[i].answer


def _loss(tables: Sequence[tuple[torch.Tensor, int]], sharper: float) -> float:
    """Mean negative log-likelihood, were the cosines multiplied by so much more."""
    return -sum(float((sharper * log_C).log_softmax(dim=0)[a]) for log_C, a in tables) / len(tables)
