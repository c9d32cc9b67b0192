"""How sure it is that the expert of most weight is the right one: P(its task is the query's own).

A logistic model of few numbers for each sort of query, by what it comes with and by whether the
library's metric was fitted on the first expert's task. Fitted once per library with each expert
left out in turn (`routers.fitting.confidence`), so that a query which no expert fits counts as
wrong. Knows scores and views, and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from itertools import combinations_with_replacement

from torch import Tensor

from routers.calibration import Calibration
from routers.index import UNSCORED
from routers.request.evidence import UNKNOWN

VIEWS = ("instruction", "choices", "labels", "input", "density")
"""Views of the first expert that count: unlike its probability, they don't depend on rivals."""
BIAS, BEST, LEAD = "bias", "log_best", "lead"
MOST_LEAD = 40.0
LEAST_BEST = -3.0
"""An even guess among 20. Of a large library's evener ones no fit has seen any."""
DENSITIES = (-200.0, 100.0)
"""Log-densities outside are no less, and no more, of a sign."""
OF_INPUTS = (BEST, LEAD, "input", "density")
PRODUCTS = tuple(combinations_with_replacement(OF_INPUTS, 2))
"""What an input tells is not linear: a great lead over rivals says little of one that is far."""
USUAL_TERMS = (LEAD, *VIEWS)
TERMS = (BIAS, BEST, *USUAL_TERMS, *("*".join(pair) for pair in PRODUCTS))


def confidence(
    log_best: float, lead: float | None, first: int, views: Mapping[str, Tensor],
    constants: Calibration, *, late: bool = False,
) -> float:  # fmt: skip
    """The probability that the first expert is the query's own.

    Args:
        log_best: the logarithm of its probability among those that may answer. lead: how far that
            is above the second's; None without a second. first: its position in `views`.
        late: it joined after the constants were fitted. Where these have no model of such, it
            counts as one of before.
    """
    models = constants.confidence
    late = late and sort_of(views, late=True) in models
    model = models.get(sort_of(views, late=late))
    if model is None:
        return math.exp(log_best)
    seen = {LEAD: lead, **{name: float(view_E[first]) for name, view_E in views.items()}}
    terms = told(log_best, seen, constants.usual_late if late else constants.usual)
    logit = sum(weight * terms[name] for name, weight in model.items())
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))


def sort_of(views: Collection[str], *, late: bool = False) -> str:
    """Names queries that come with the same parts, as "choices,input".

    Args:
        late: the first expert joined after the constants were fitted: "choices,input,late".
    """
    parts = sorted(set(views) & {"instruction", "choices", "input"})
    return ",".join([*parts, "late"] if late else parts)


def told(
    log_best: float, seen: Mapping[str, float | None], usual: Mapping[str, float]
) -> dict[str, float]:
    """What the model reads. What is not there says as much as usual: nothing.

    Args:
        seen, usual: by names of `USUAL_TERMS`: the lead, and views of the first expert.
    """
    terms = {BIAS: 1.0, BEST: max(log_best, LEAST_BEST)}
    for name in USUAL_TERMS:
        value = within(name, seen.get(name))
        terms[name] = 0.0 if value is None else value - usual.get(name, 0.0)
    return terms | {f"{a}*{b}": terms[a] * terms[b] for a, b in PRODUCTS}


def within(name: str, value: float | None) -> float | None:
    """A term's value in the bounds that count; None where it is not known."""
    if value is None or value <= UNKNOWN.get(name, UNSCORED):
        return None
    if name == LEAD:
        return min(value, MOST_LEAD)
    least, most = DENSITIES
    return max(least, min(most, value)) if name == "density" else value
