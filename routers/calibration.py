"""The constants of routing, set once per library and kept in it with a version.

`routers.fitting.calibrate` computes them from examples set aside before training. Adding an expert
changes none of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Annotated, Self, cast

from pydantic import AfterValidator, Field, model_validator

from experts.manifest import Record

VIEWS: tuple[str, ...] = ("instruction", "choices", "labels", "input", "density")
"""What the evidence router compares: the caller's sentence with task instructions; each choice with
label wordings; each label with the choices; the input with centroids, or, where the library has a
metric, by log-density."""
USUAL = {"instruction": 15.0, "choices": 15.0, "labels": 15.0, "input": 15.0, "density": 0.15}
"""Weights of a library that was never calibrated, and where a calibration starts."""


TEMPERATURE = 0.05
"""Of answers: what experts are trained with."""
FOREIGN = (
    "The constants were fitted by another embedder: confidence is not calibrated. "
    "Run `sailplane fit --calibrate` with this one."
)

DATED = (
    "The constants are of an older version, without the metric of inputs that this compares by: "
    "experts are told apart less well. Run `sailplane fit --calibrate`."
)
FORMER = frozenset[str](VIEWS) - {"density"}
"""The views that were weighed before libraries had a metric."""


def _complete(views: Mapping[str, float]) -> Mapping[str, float]:
    if set(views) != set(VIEWS):
        raise ValueError(f"expected a weight for each of {', '.join(VIEWS)}")
    return views


Views = Annotated[Mapping[str, float], AfterValidator(_complete)]


Share = Annotated[float, Field(ge=0, le=1)]
NO_EXPERT = "-"
"""Where an expert's id would stand, when the bare backbone answered; no expert has this id."""

CONFIDENCE_DIGITS = 2
"""Confidences crowd near 1: finer differences there would pass for a change of the questions."""


class Reference(Record):
    """How set-aside questions of one sort were routed, for later ones to be compared with.

    Attributes:
        count: questions. edges: of bins of their confidence, rising: its deciles and some fixed
            marks. shares: of the questions, by `bin_of` their confidence.
        first: share of each expert that had the most weight, or of `NO_EXPERT`.
    """

    count: int = Field(ge=1)
    edges: tuple[Share, ...]
    shares: tuple[Share, ...]
    first: Mapping[str, Share]

    @model_validator(mode="after")
    def _as_many_shares(self) -> Self:
        if len(self.shares) != len(self.edges) + 1 or list(self.edges) != sorted({*self.edges}):
            raise ValueError("expected edges that rise, and one share more than edges")
        return self

    def bin_of(self, confidence: float) -> int:
        """Where a confidence lies: below the first edge (0), from it on, ..., from the last on."""
        return bisect_right(self.edges, round(confidence, CONFIDENCE_DIGITS))


class Calibration(Record):
    """Constants of the default router, and of the global rule (GLIDER, section 4.3).

    Attributes:
        views: weight of each view in the logarithm of an expert's odds.
        confidence: by sort of query, weights of what says that the first expert is its own
            (`routers.confidence`); empty where that was not fitted.
        usual, usual_late: what is usual of a first expert that is the query's own, by what is told
            of it; of one that was there when the constants were fitted, and of one that joined
            later.
        fitted_on: ids of the experts that the constants were fitted on; all others joined later.
        sharpness: probabilities are raised to this power before experts are mixed by them.
        flatness, unsure: of the mix for a query that no expert fits: they are raised to this power
            too, and its experts act at this strength.
        threshold: p. beta, gamma: `alpha = beta + gamma * [max s_global > p]`.
        temperature: of answers: cosines with choices are divided by it.
        tensors: the file of the library's statement map and metric.
        reference: by what the request router was given, how questions were routed by the constants.
            It changes no answer, and the version does not name it.
        embedder: fingerprint of the embedder they were fitted by; None is the backbone.
    """

    version: str = "uncalibrated"
    views: Views = Field(default_factory=lambda: dict(USUAL))
    confidence: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)
    usual: Mapping[str, float] = Field(default_factory=dict)
    usual_late: Mapping[str, float] = Field(default_factory=dict)
    fitted_on: tuple[str, ...] = ()
    sharpness: float = Field(default=1.0, ge=1)
    flatness: Share = 0.3
    unsure: Share = 0.6
    threshold: float = 0.8
    beta: float = 3.0
    gamma: float = 100.0
    temperature: float = Field(default=TEMPERATURE, gt=0)
    tensors: str | None = None
    reference: Mapping[str, Reference] = Field(default_factory=dict)
    embedder: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_former_form(cls, stored: object) -> object:
        """Constants from before libraries had a metric: the weights stay.

        The floors and the reference told of the router of then.
        """
        told = cast("Mapping[str, object]", stored if isinstance(stored, Mapping) else {})
        views = told.get("views")
        if not isinstance(views, Mapping) or FORMER.symmetric_difference(views):
            return stored
        kept = {name: value for name, value in told.items() if name not in ("floors", "reference")}
        return {**kept, "views": {**views, "density": USUAL["density"]}}

    def under(self, embedder: str, backbone: str) -> tuple[Calibration, str | None]:
        """The constants as they hold under an embedder, and what is wrong with that, if anything.

        Weights of views stay. Confidence goes: cosines of another embedder lie elsewhere, and what
        was far by the one may be near by the other. So who joined later makes no difference.

        Args:
            embedder, backbone: fingerprints of those in force.
        """
        if not self.confidence or (self.embedder or backbone) == embedder:
            return self, None
        bare = {"confidence": {}, "usual": {}, "usual_late": {}, "fitted_on": ()}
        return self.model_copy(update=bare), FOREIGN

    def joined_later(self, id: str) -> bool:
        """Whether an expert was not there when the constants were fitted."""
        return bool(self.fitted_on) and id not in self.fitted_on

    def alpha(self, best: float) -> float:
        """The rule's alpha for a query whose best global score is `best`."""
        return self.beta + (self.gamma if best > self.threshold else 0.0)
