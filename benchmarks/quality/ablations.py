"""The default router with one idea taken out: request routers and presets that nobody serves.

They are known to the comparison's engine alone (`add_ablations`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.presets import PRESETS, Preset
from routers.request import REQUEST_ROUTERS, RequestRouter, Scores
from routers.request.evidence import EvidenceRouter
from routers.types import Features
from server.engine.run import Engine


class CentroidEvidence(EvidenceRouter):
    """Inputs compared by cosines with centroids, as in a library without a metric."""

    name = "evidence-centroids"

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        return super().score(replace(query, input_F=None), catalogue, calibration)


class LogEvidence(EvidenceRouter):
    """Logarithms of the probabilities, for a plain softmax."""

    name = "evidence-log"

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """See `RequestRouter.score`."""
        scores = super().score(query, catalogue, calibration)
        return Scores(scores.score_E.clamp(min=1e-300).log(), scores.views)


NO_METRIC, NO_HEDGE = "sailplane-centroids", "sailplane-sharp"
_ROUTERS: tuple[RequestRouter, ...] = (CentroidEvidence(), LogEvidence())
_PRESETS = (
    replace(PRESETS["sailplane"], name=NO_METRIC, request=CentroidEvidence.name),
    Preset(NO_HEDGE, LogEvidence.name, "softmax", experts=PRESETS["sailplane"].experts),
)
VARIANTS = frozenset(p.name for p in _PRESETS)
"""Their names; all go by the library's constants."""


def add_ablations(engine: Engine) -> None:
    """Have an engine know the presets of the ablations too."""
    for router in _ROUTERS:
        REQUEST_ROUTERS.setdefault(router.name, router)
    presets: Mapping[str, Preset] = {**engine.presets, **{p.name: p for p in _PRESETS}}
    engine.presets = engine.routing.presets = presets
