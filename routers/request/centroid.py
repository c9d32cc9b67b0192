"""Request router `centroid`: the input's un-adapted features against the experts' centroids.

DAM's router (Cheng et al. 2024, section 3.2): the cosine of the frozen backbone's pooled features
with the mean of an expert's training features.
"""

from __future__ import annotations

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.request.base import Scores
from routers.types import Features


class CentroidRouter:
    """Cosine with the centroid of each expert."""

    name = "centroid"
    needs = frozenset({"input"})

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        assert query.input_D is not None
        score_E = catalogue.means.best(query.input_D[None])[0]
        return Scores(score_E, {"input": score_E})
