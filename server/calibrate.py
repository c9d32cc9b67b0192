"""The global rule's constants: the few values tried, and the one that answers best.

Runs the engine that serves on examples set aside before training; looks at inputs only, since
that is where the token router has most to say. Writes the winner nowhere: the caller does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from experts.manifest import TaskCard
from experts.statements import StatementMap
from experts.training.data import Task
from routers.calibration import Calibration
from server.engine.run import Engine
from server.evaluate import measure

THRESHOLDS = (0.6, 0.8, 0.95)
BETAS = (3.0, 10.0, 30.0)
PER_TASK = 24

Constants = tuple[float, float]


def calibrate_rule(
    engine: Engine,
    constants: Calibration,
    tasks: Sequence[Task],
    cards: Mapping[str, TaskCard],
    watch: Callable[[list[Constants]], Iterable[Constants]] = iter,
) -> Calibration:
    """The threshold p and beta of the best accuracy.

    The first of equals wins, so the paper's values win a tie. gamma stays GLIDER's 100.

    Args:
        watch: wraps the grid, for a progress bar.
    """
    best, best_accuracy = constants, -1.0
    grid = [(p, beta) for beta in BETAS for p in THRESHOLDS]
    for p, beta in watch(grid):
        candidate = constants.model_copy(update={"threshold": p, "beta": beta})
        engine.library.write_calibration(candidate.model_dump(mode="json"))
        result = measure(engine, tasks, ["glider"], "input", cards, PER_TASK, aside=True)
        accuracy = result["means"]["glider"]
        if isinstance(accuracy, float) and accuracy > best_accuracy:
            best, best_accuracy = candidate, accuracy
    return best


def tensors_of(placing: StatementMap | None) -> dict[str, Tensor]:
    """The library's statement map as it is stored."""
    if placing is None:
        return {}
    return {
        "statement_map": placing.map_FD.half(),
        "statement_shift": placing.shift_D.half(),
        "statement_scale": torch.tensor(placing.scale),
    }


def version_of(constants: Calibration) -> str:
    """A name for exactly these constants."""
    text = constants.model_copy(update={"version": ""}).model_dump_json()
    return hashlib.sha256(text.encode()).hexdigest()[:12]
