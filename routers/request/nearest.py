"""Request routers that look the input up among what is stored of the experts' training inputs.

`nearest` is the retrieval of Jang et al. 2023 (the baseline of PHATGOOSE): the greatest cosine.
`neighbours` is a nearest-neighbour vote (Cover & Hart 1967) over all experts' vectors together.
What is stored is an expert's training examples where it has them, or else its prototypes; in a
library of both, the votes favour experts with examples.
"""

from __future__ import annotations

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.request.base import Scores
from routers.types import Features

VOTES = 20


class NearestRouter:
    """Cosine with the nearest stored input of each expert."""

    name = "nearest"
    needs = frozenset({"input"})

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        assert query.input_D is not None
        score_E = catalogue.stored.best(query.input_D[None])[0]
        return Scores(score_E, {"input": score_E})


class NeighboursRouter:
    """Share of the nearest stored inputs that are an expert's, each weighed by its cosine."""

    name = "neighbours"
    needs = frozenset({"input"})

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        assert query.input_D is not None
        score_E = catalogue.stored.votes(query.input_D[None], VOTES)[0] / VOTES
        return Scores(score_E, {"input": score_E})
