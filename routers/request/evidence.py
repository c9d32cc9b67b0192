"""Request router `evidence`: all that is known of a query against all that is known of experts.

A query has up to three parts, embedded apart: the instruction, the choices and the input. Each is
compared with the artefacts of its own sort; the input by the library's metric where it has one, or
else by cosines with centroids. The calibrated sum of these views is the logarithm of an expert's
odds: naive Bayes, its views weighed by how far each is to be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.index import UNSCORED
from routers.metric import FARTHEST
from routers.request.base import Scores
from routers.types import Features

UNKNOWN = {"density": FARTHEST}
"""What stands in a view for an expert without vectors for it, where it is not `UNSCORED`."""
HOPELESS = {"density": 40.0}
"""So far behind the best, a view's mean heeds no differences: log-densities have a long tail."""


class EvidenceRouter:
    """Probability of each expert, from all that is known of the query."""

    name = "evidence"
    needs = frozenset({"instruction", "choices", "input", "density"})

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        views = view_scores(query, catalogue)
        if not views:
            even = 1 / max(1, len(catalogue))
            return Scores(torch.full((len(catalogue),), even, dtype=torch.float64))
        logit_E = fuse(views, {name: calibration.views[name] for name in weighed(views)})
        return Scores(torch.softmax(logit_E.double(), dim=0), views)


def view_scores(query: Features, catalogue: Catalogue) -> dict[str, Tensor]:
    """Per view (E,): cosines, and log-densities of the input; for the parts that the query has."""
    views: dict[str, Tensor] = {}
    if query.instruction_D is not None:
        views["instruction"] = catalogue.instructions.best(query.instruction_D[None])[0]
    if query.choice_CD is not None:
        views["choices"], views["labels"] = catalogue.choices.scores(query.choice_CD)
    if query.input_D is not None:
        views["input"] = catalogue.centroids.best(query.input_D[None])[0]
    if (density_E := catalogue.densities(query)) is not None:
        views["density"] = density_E
    return views


def weighed(views: Mapping[str, Tensor]) -> list[str]:
    """The views that count: what centroids say of an input is left out where densities are."""
    return [name for name in views if not (name == "input" and "density" in views)]


def fuse(views: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Weighted sum of the views that have a weight.

    An expert without vectors for a view gets the view's mean there: what is not known of it speaks
    neither for nor against it. Experts that are hopelessly far do not pull that mean down.
    """
    total_E = torch.zeros_like(next(iter(views.values())))
    for name, weight in weights.items():
        total_E = total_E + weight * filled(name, views[name])
    return total_E


def filled(view: str, score_XE: Tensor) -> Tensor:
    """A view's scores (..., E), those that are not known replaced by the mean of the others.

    Where none is known, all are 0.
    """
    known_XE = score_XE > UNKNOWN.get(view, UNSCORED)
    if known_XE.all():
        return score_XE
    best_X1 = torch.where(known_XE, score_XE, -torch.inf).amax(dim=-1, keepdim=True)
    counted_XE = score_XE.maximum(best_X1 - HOPELESS.get(view, math.inf))
    total_X1 = torch.where(known_XE, counted_XE, 0.0).sum(dim=-1, keepdim=True)
    mean_X1 = total_X1 / known_XE.sum(dim=-1, keepdim=True).clamp(min=1)
    return torch.where(known_XE, score_XE, mean_X1)
