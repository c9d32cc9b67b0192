"""The constants of routing, set once per library and kept in it with a version.

`routers.fitting.calibrate` computes them from examples set aside before training. Adding an expert
changes none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from experts.manifest import Record

VIEWS: tuple[str, ...] = ("instruction", "choices", "labels", "input")
"""What the instruction router compares: the caller's sentence with task instructions; each choice
with label wordings; each label with the choices; the input with centroids."""


FOREIGN = (
    "The constants were fitted by another embedder: no input is told to fit no expert. "
    "Run `sailplane fit --calibrate` with this one."
)


def _complete(views: Mapping[str, float]) -> Mapping[str, float]:
    if set(views) != set(VIEWS):
        raise ValueError(f"expected a weight for each of {', '.join(VIEWS)}")
    return views


Views = Annotated[Mapping[str, float], AfterValidator(_complete)]


class Calibration(Record):
    """Constants of the instruction router and of the global rule (GLIDER, section 4.3).

    Attributes:
        views: weight of each view's cosine in an expert's logit.
        floors: per view, the least cosine that a query has with the expert it belongs to.
        threshold: p. beta, gamma: `alpha = beta + gamma * [max s_global > p]`.
        tensors: the file of the library's statement map.
        embedder: fingerprint of the embedder they were fitted by; None is the backbone.
    """

    version: str = "uncalibrated"
    views: Views = Field(default_factory=lambda: dict.fromkeys(VIEWS, 15.0))
    floors: Mapping[str, float] = Field(default_factory=dict)
    threshold: float = 0.8
    beta: float = 3.0
    gamma: float = 100.0
    tensors: str | None = None
    embedder: str | None = None

    def under(self, embedder: str, backbone: str) -> tuple[Calibration, str | None]:
        """The constants as they hold under an embedder, and what is wrong with that, if anything.

        Weights stay. Floors go: cosines of another embedder lie elsewhere, and what was far by
        the one may be near by the other.

        Args:
            embedder, backbone: fingerprints of those in force.
        """
        fitted = self.floors and (self.embedder or backbone) != embedder
        return (self.model_copy(update={"floors": {}}), FOREIGN) if fitted else (self, None)

    def alpha(self, best: float) -> float:
        """The rule's alpha for a query whose best global score is `best`."""
        return self.beta + (self.gamma if best > self.threshold else 0.0)
