"""Request router `uniform`: every expert scores the same. For `average`, `phatgoose`, `arrow`."""

from __future__ import annotations

import torch

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.request.base import Scores
from routers.types import Features


class UniformRouter:
    """No preference."""

    name = "uniform"
    needs = frozenset[str]()

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        return Scores(torch.zeros(len(catalogue)))
