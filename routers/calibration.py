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
    """

    version: str = "uncalibrated"
    views: Views = Field(default_factory=lambda: dict.fromkeys(VIEWS, 15.0))
    floors: Mapping[str, float] = Field(default_factory=dict)
    threshold: float = 0.8
    beta: float = 3.0
    gamma: float = 100.0
    tensors: str | None = None

    def alpha(self, best: float) -> float:
        """The rule's alpha for a query whose best global score is `best`."""
        return self.beta + (self.gamma if best > self.threshold else 0.0)
