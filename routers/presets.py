"""Named ways to route: which routers, how many experts, which rule. Rows of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ALL = 64
"""How many candidates `all experts` may be; above it the best of `RANKING` are kept."""
RANKING = "evidence"
"""The request router that says who is left out, where `uniform` would leave it to the alphabet."""


@dataclass(frozen=True)
class Preset:
    """One row.

    Attributes:
        request: name of the request router, None for the bare backbone. rule: how scores become
            weights, see `routers.weighing`; "softmax" at `temperature` (in token mode the score
            divided by it is added to the gates').
        token: name of the token router; None merges at request level.
        experts: how many experts a sample may use (merge), or candidates (token). Where that is
            `ALL`, every expert is wanted and none is preferred: a request router is asked only
            when some must be left out (`routers.policy.ranked_preset`).
        top_k: experts per token and site in token mode.
    """

    name: str
    request: str | None
    rule: Literal["hedged", "global", "softmax", "equal"] = "equal"
    temperature: float = 1.0
    token: str | None = None
    experts: int = ALL
    top_k: int = 2
    says: str = ""
    paper: str = ""

    @property
    def wants_all(self) -> bool:
        """Whether every expert of the library is wanted."""
        return self.request is not None and self.experts == ALL

    @property
    def is_calibrated(self) -> bool:
        """Whether selections depend on the library's constants."""
        return self.request == RANKING or self.rule in ("hedged", "global")


PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        Preset(
            "sailplane",
            "evidence",
            "hedged",
            experts=8,
            says="all evidence as probabilities; sharp where sure, flat and weak where not",
        ),
        Preset(
            "glider",
            "sentence",
            "global",
            token="gate",
            top_k=2,
            paper="Li et al. 2024",
            says="cosine of one sentence and gates, under the global rule; top 2 a token and site",
        ),
        Preset(
            "glider-3",
            "sentence",
            "softmax",
            temperature=1 / 3,
            token="gate",
            top_k=2,
            says="cosine of one sentence times 3, and gates",
            paper="Li et al. 2024, its release",
        ),
        Preset(
            "glider-100",
            "sentence",
            "softmax",
            temperature=1 / 100,
            token="gate",
            top_k=2,
            says="cosine of one sentence times 100, and gates",
            paper="Li et al. 2024, its release",
        ),
        Preset(
            "dam",
            "centroid",
            "softmax",
            temperature=0.01,
            experts=2,
            paper="Cheng et al. 2024",
            says="the 2 nearest centroids of inputs, merged for the request",
        ),
        Preset(
            "phatgoose",
            "uniform",
            token="gate",
            top_k=2,
            paper="Muqeeth et al. 2024",
            says="gates over all experts, top 2 per token and site",
        ),
        Preset(
            "arrow",
            "uniform",
            token="arrow",
            top_k=3,
            paper="Ostapenko et al. 2024",
            says="prototypes of weights over all experts, top 3 per token and site",
        ),
        Preset(
            "retrieval",
            "nearest",
            experts=1,
            paper="Jang et al. 2023",
            says="the expert with the nearest stored input",
        ),
        Preset(
            "neighbours",
            "neighbours",
            experts=1,
            paper="Cover & Hart 1967",
            says="the expert that most of the nearest stored inputs are of",
        ),
        Preset(
            "centroid",
            "centroid",
            experts=1,
            says="the expert with the nearest centroid: `dam` without merging",
        ),
        Preset("average", "uniform", says="every expert at the same weight"),
        Preset("base", None, says="the bare backbone"),
    )
}
DEFAULT = "sailplane"
