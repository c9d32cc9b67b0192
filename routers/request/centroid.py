"""Request router `centroid`: the input's un-adapted features against the experts' centroids.

With a single centroid each this is DAM's router (Cheng et al. 2024, section 3.2): the cosine of
the frozen backbone's pooled features with the mean of an expert's training features. `prototypes`
uses several an expert.
"""

from __future__ import annotations

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.request.base import Scores
from routers.types import Features


class CentroidRouter:
    """Cosine with the nearest centroid of each expert."""

    needs = frozenset({"input"})

    def __init__(self, name: str, *, single: bool) -> None:
        self.name = name
        self.single = single

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        assert query.input_D is not None
        index = catalogue.means if self.single else catalogue.centroids
        score_E = index.best(query.input_D[None])[0]
        return Scores(score_E, {"input": score_E})
