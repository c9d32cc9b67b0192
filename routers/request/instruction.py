"""Request router `instruction`: the task's description against the experts' descriptions.

GLIDER (Li et al. 2024, section 4.2) embeds one LLM-written instruction. Here a query may have up
to three parts, embedded apart: the instruction, the choices and the input. Each is compared with
the artefacts of its own sort, and the calibrated sum of the cosines is turned into a probability
per expert: the `s_global` of the global rule.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.index import UNSCORED
from routers.request.base import Scores
from routers.types import Features


class InstructionRouter:
    """Probability of each expert, from all that is known of the query."""

    name = "instruction"
    needs = frozenset({"instruction", "choices", "input"})

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        views = view_scores(query, catalogue)
        if not views:
            return Scores(torch.full((len(catalogue),), 1 / max(1, len(catalogue))), fit=None)
        weights = {name: calibration.views[name] for name in views}
        logit_E = fuse(views, weights)
        return Scores(torch.softmax(logit_E, dim=0), views, _fit(views, calibration))


def _fit(views: Mapping[str, Tensor], calibration: Calibration) -> float | None:
    """Margin of the best view over its floor: one view in which some expert is near is enough."""
    margins = [
        float(cosine_E.max()) - calibration.floors[name]
        for name, cosine_E in views.items()
        if name in calibration.floors and len(cosine_E)
    ]
    return max(margins) if margins else None


def view_scores(query: Features, catalogue: Catalogue) -> dict[str, Tensor]:
    """Cosines per view: name -> (E,), for the parts that the query has."""
    views: dict[str, Tensor] = {}
    if query.instruction_D is not None:
        views["instruction"] = catalogue.instructions.best(query.instruction_D[None])[0]
    if query.choice_CD is not None:
        views["choices"], views["labels"] = catalogue.choices.scores(query.choice_CD)
    if query.input_D is not None:
        views["input"] = catalogue.centroids.best(query.input_D[None])[0]
    return views


def fuse(views: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Weighted sum of the views.

    An expert without vectors for a view gets the view's mean there: what is not known of it speaks
    neither for nor against it.
    """
    total_E = torch.zeros_like(next(iter(views.values())))
    for name, cosine_E in views.items():
        known_E = cosine_E > UNSCORED
        mean = cosine_E[known_E].mean() if known_E.any() else 0.0
        total_E = total_E + weights[name] * torch.where(known_E, cosine_E, mean)
    return total_E
