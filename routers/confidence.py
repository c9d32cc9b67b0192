"""How sure it is that the expert of most weight is the right one: P(its task is the query's own).

A logistic model of few numbers for each sort of query, by what it comes with, fitted once per
library with each expert left out in turn (`routers.fitting.confidence`), so that a query which no
expert fits counts as wrong. Knows scores and views, and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from torch import Tensor

from routers.calibration import Calibration
from routers.index import UNSCORED

COSINES = ("instruction", "choices", "labels", "input")
"""Views of the first expert that count: unlike its probability, they don't depend on rivals."""
BIAS, BEST, LEAD = "bias", "log_best", "lead"
TERMS = (BIAS, BEST, LEAD, *COSINES)
USUAL_TERMS = (LEAD, *COSINES)
MOST_LEAD = 40.0


def confidence(
    log_best: float, lead: float | None, first: int, views: Mapping[str, Tensor],
    constants: Calibration,
) -> float:  # fmt: skip
    """The probability that the first expert is the query's own.

    Args:
        log_best: the logarithm of its probability among those that may answer. lead: how far that
            is above the second's; None without a second. first: its position in `views`.
    """
    model = constants.confidence.get(sort_of(views))
    if model is None:
        return math.exp(log_best)
    cosines = {name: float(view_E[first]) for name, view_E in views.items()}
    terms = told(log_best, lead, cosines, constants)
    logit = sum(weight * terms[name] for name, weight in model.items())
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))


def sort_of(views: Collection[str]) -> str:
    """Names queries that come with the same parts: "input", "choices,input", ..."""
    return ",".join(sorted(set(views) & {"instruction", "choices", "input"}))


def told(
    log_best: float, lead: float | None, cosines: Mapping[str, float], constants: Calibration
) -> dict[str, float]:
    """What the model reads. What is not there says as much as usual: nothing."""
    usual = constants.usual
    terms = {BIAS: 1.0, BEST: max(log_best, -MOST_LEAD)}
    terms[LEAD] = 0.0 if lead is None else min(lead, MOST_LEAD) - usual.get(LEAD, 0.0)
    for name in COSINES:
        cosine = cosines.get(name, UNSCORED)
        terms[name] = cosine - usual.get(name, 0.0) if cosine > UNSCORED else 0.0
    return terms
