"""The contract of a request router: it scores, it never decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from routers.calibration import Calibration
from routers.catalogue import Catalogue
from routers.types import Features


@dataclass(frozen=True, eq=False)
class Scores:
    """One query's scores over E experts.

    Attributes:
        score_E: the score; larger is better. views: the parts it was made of, by name.
    """

    score_E: Tensor
    views: Mapping[str, Tensor] = field(default_factory=dict)


class RequestRouter(Protocol):
    """Scores the experts of a catalogue for one query.

    `needs` names the features it reads: "input" and "density" (what centroids, and what densities
    are compared with), "instruction", "choices", "sentence".
    """

    name: str
    needs: frozenset[str]

    def score(self, query: Features, catalogue: Catalogue, calibration: Calibration) -> Scores:
        """Scores of all experts, in the catalogue's order."""
        ...
