"""Request router `sentence`: one sentence about the query against the experts' instructions.

GLIDER's global score as its release computes it (Li et al. 2024, section 4.2): the cosine of two
embedded descriptions, as it is. The query's description is the caller's sentence; where there is
none and no language model to write one, `routers.instructions.stand_in` says what takes its place.
"""

from __future__ import annotations

import torch

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.request.base import Scores
from routers.request.evidence import fuse
from routers.types import Features


class SentenceRouter:
    """Cosine with the nearest of each expert's instructions; one without has the mean."""

    name = "sentence"
    needs = frozenset({"sentence"})

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        if query.sentence_D is None:
            return Scores(torch.zeros(len(catalogue)))
        cosine_E = catalogue.instructions.best(query.sentence_D[None])[0]
        score_E = fuse({"sentence": cosine_E}, {"sentence": 1.0})
        return Scores(score_E, {"sentence": cosine_E})
