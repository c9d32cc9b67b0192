"""How sure it is that the expert of most weight is the right one: P(its task is the query's own).

A logistic model of few numbers, fitted once per library with each expert left out in turn
(`routers.fitting.confidence`), so that a query which no expert fits counts as wrong. Knows scores
and views, and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from routers.calibration import Calibration
from routers.index import UNSCORED

VIEWS_TOLD = ("instruction", "choices", "labels", "input")
"""Cosines of the first expert that count: unlike its probability, they don't depend on rivals."""
BIAS, BEST, REST = "bias", "log_best", "log_rest"
TERMS = (BIAS, BEST, REST, *VIEWS_TOLD)
LEAST = 1e-4


def confidence(
    best: float, first: int, views: Mapping[str, Tensor], constants: Calibration
) -> float:
    """The probability that the first expert is the query's own.

    Args:
        best: its probability among those that may answer. first: its position in `views`.
    """
    if not constants.confidence:
        return best
    terms = told(best, {name: float(view_E[first]) for name, view_E in views.items()}, constants)
    logit = sum(weight * terms[name] for name, weight in constants.confidence.items())
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))


def told(best: float, cosines: Mapping[str, float], constants: Calibration) -> dict[str, float]:
    """What the model reads. A view that is not there says as much as a usual one: nothing."""
    terms = {BIAS: 1.0, BEST: math.log(best + LEAST), REST: math.log(1 - best + LEAST)}
    for name in VIEWS_TOLD:
        cosine = cosines.get(name, UNSCORED)
        terms[name] = cosine - constants.usual.get(name, 0.0) if cosine > UNSCORED else 0.0
    return terms
