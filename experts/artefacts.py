"""The routing artefacts of one expert: what routers read to score it, as tensors.

Stored in `routing.safetensors`. `routers.fitting` computes them; here is only their form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

REQUEST_ARTEFACTS = ("instructions", "choices", "centroids")
TOKEN_ARTEFACTS = ("gate", "arrow")
COEFFICIENTS = ("arrow",)
"""Token artefacts that are kept in short: see `experts.directions`."""
INPUTS, EXAMPLES, SEEN = "inputs", "examples", "seen"
ROWS = (*REQUEST_ARTEFACTS, INPUTS, EXAMPLES)
"""Artefacts that are a vector a row; the last two are no part of a shortlist's sieve."""
MOST_SEEN = 60_000
"""Half precision holds no more, and more changes nothing."""


@dataclass(frozen=True, eq=False, slots=True)
class Artefacts:
    """What routers know of an expert: by its words, its inputs and its weights.

    Attributes:
        embedder: fingerprint of the model that made `instructions` and `choices`. All else is the
            backbone's, whose fingerprint the manifest has.
        instructions: (I, W) task instructions. choices: (C, W) label wordings, or prototypes of
            the choices where every question brings its own. centroids: (M, D) prototypes of
            un-adapted half-way features. All are unit vectors; the embedder's width W and the
            backbone's D may differ.
        inputs: (1 + R, F) the mean of the un-adapted features of inputs, and directions in which
            they vary beyond what the library's metric expects. seen: of how many inputs.
        vectors: "gate" -> site -> vector (D_site,); "arrow" -> site -> coefficients (R_site,) of
            the rows that the expert reads the site's input by. For token routing.
        examples: (M, D) half-way features of training inputs, unit vectors. They are large, so an
            expert rarely has them; comparisons do.
    """

    embedder: str
    instructions: Tensor | None = None
    choices: Tensor | None = None
    centroids: Tensor | None = None
    vectors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    examples: Tensor | None = None
    inputs: Tensor | None = None
    seen: int = 0

    def rows(self) -> list[Tensor]:
        """The request artefacts that are there, a vector a row."""
        return [t for n in REQUEST_ARTEFACTS if (t := getattr(self, n)) is not None]

    @property
    def routable(self) -> bool:
        """Whether a request router has anything to score the expert by."""
        return self.instructions is not None or self.centroids is not None

    def of_task(self) -> Artefacts:
        """What holds of the task whatever the expert's weights: all but the token vectors."""
        return replace(self, vectors={})

    def slim(self) -> Artefacts:
        """What routing a request needs, small enough to keep for thousands of experts.

        Request artefacts in half precision, as they are stored; of the token vectors only names.
        What is told of inputs goes into a form of its own (`routers.metric.Gaussian`).
        """
        kept = {n: t.half() for n in ROWS if n != INPUTS and (t := getattr(self, n)) is not None}
        return Artefacts(self.embedder, **kept, vectors={name: {} for name in self.vectors})

    def to_tensors(self) -> dict[str, Tensor]:
        """Flat names for safetensors: `instructions`, ..., `gate.<site>`, `arrow.<site>`."""
        flat = {n: t for n in ROWS if (t := getattr(self, n)) is not None}
        if self.inputs is not None:
            flat[SEEN] = torch.tensor(float(min(self.seen, MOST_SEEN)))
        for artefact, by_site in self.vectors.items():
            flat |= {f"{artefact}.{site}": vector for site, vector in by_site.items()}
        return flat

    @classmethod
    def from_tensors(cls, embedder: str, flat: Mapping[str, Tensor]) -> Artefacts:
        """The inverse of `to_tensors`; unknown names are ignored: newer files stay readable."""
        vectors: dict[str, dict[str, Tensor]] = {}
        for name, tensor in flat.items():
            artefact, _, site = name.partition(".")
            if artefact in TOKEN_ARTEFACTS and site:
                vectors.setdefault(artefact, {})[site] = tensor
        seen = _count(flat[SEEN]) if SEEN in flat else 0
        return cls(embedder, **{n: flat.get(n) for n in ROWS}, vectors=vectors, seen=seen)


def _count(stored: Tensor) -> int:
    """A stored count; what is none, or not a finite one, is 0."""
    value = float(stored) if stored.numel() == 1 else 0.0
    return int(value) if 0 <= value <= MOST_SEEN else 0
