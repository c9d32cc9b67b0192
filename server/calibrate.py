"""The global rule's constants: the few values tried, and the one that answers best.

Runs the engine that serves on examples set aside before training; looks at inputs only, since
that is where the token router has most to say. Writes the winner nowhere: the caller does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

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
GAMMAS = (100.0, 30.0, 300.0)
PER_TASK = 24


@dataclass(frozen=True)
class Point:
    """One point of the grid: the rule's constants."""

    threshold: float
    beta: float
    gamma: float = GAMMAS[0]


PLANE = tuple(Point(p, beta) for beta in BETAS for p in THRESHOLDS)


def calibrate_rule(
    engine: Engine,
    constants: Calibration,
    tasks: Sequence[Task],
    cards: Mapping[str, TaskCard],
    told: Callable[[], object] = lambda: None,
) -> Calibration:
    """The threshold p, beta and gamma of the best accuracy.

    p and beta are tried together, then gamma at the best of them. The first of equals wins, so the
    paper's values win a tie.

    Args:
        told: called after each of `POINTS` trials.
    """

    def accuracy(point: Point) -> float:
        with engine.routing.trying(constants.model_copy(update=asdict(point))):
            result = measure(engine, tasks, ["glider"], "input", cards, PER_TASK, aside=True)
        told()
        return result["means"]["glider"] or 0.0

    best = max(PLANE, key=accuracy)
    best = max((replace(best, gamma=gamma) for gamma in GAMMAS), key=accuracy)
    return constants.model_copy(update=asdict(best))


POINTS = len(PLANE) + len(GAMMAS)


def tensors_of(placing: StatementMap | None) -> dict[str, Tensor]:
    """The library's statement map as it is stored."""
    if placing is None:
        return {}
    return {
        "statement_map": placing.map_FD.half(),
        "statement_shift": placing.shift_D.half(),
        "statement_scale": torch.tensor(placing.scale),
    }


def version_of(constants: Calibration, tensors: Mapping[str, Tensor]) -> str:
    """A name for exactly these constants and tensors."""
    bare = constants.model_copy(update={"version": "", "tensors": None})
    text = bare.model_dump_json(exclude={"reference"})
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    return digest.hexdigest()[:12]
