"""The library as request routers see it: ids and indexes over the experts' vectors.

Immutable; a change of the library builds the next one. Knows nothing of weights on disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from experts.artefacts import Artefacts
from routers.index import UNSCORED, VectorIndex
from routers.metric import Densities, Gaussian, Metric
from routers.plane import InstructionMap
from routers.types import Features


@dataclass(frozen=True, eq=False, slots=True)
class Routed:
    """One expert that can be routed to: its id, version, merge group and artefacts.

    `forms` is the number of choice vectors of each label in order, empty where the choice vectors
    are prototypes and not labels. `gaussian` is of its inputs, by the catalogue's metric.
    """

    id: str
    artefacts: Artefacts
    version: int = 1
    group: str = "lora"
    forms: tuple[int, ...] = ()
    gaussian: Gaussian | None = None


class Catalogue:
    """Routable experts in order of id: all of a library, or a shortlist of `whole` of them."""

    def __init__(
        self, experts: Iterable[Routed], whole: int | None = None, metric: Metric | None = None
    ) -> None:
        self.experts: tuple[Routed, ...] = tuple(sorted(experts, key=lambda e: e.id))
        self.ids: tuple[str, ...] = tuple(e.id for e in self.experts)
        self.whole = len(self.experts) if whole is None else whole
        self.metric = metric

    def __len__(self) -> int:
        """E, the number of experts."""
        return len(self.experts)

    def get(self, id: str) -> Routed | None:
        """An expert by its id, if it is here."""
        at = self._positions.get(id)
        return None if at is None else self.experts[at]

    def holds(self, expert: Routed) -> bool:
        """Whether it is this expert that is here, and no other version of it."""
        return self.get(expert.id) is expert

    def only(self, experts: Iterable[Routed], whole: int) -> Catalogue:
        """A shortlist of this catalogue, chosen out of `whole` experts."""
        return Catalogue(experts, whole, self.metric)

    def among(self, ids: Collection[str]) -> Catalogue:
        """The experts of these ids alone, as if there were no others."""
        there = [i for id in ids if (i := self._positions.get(id)) is not None]
        return Catalogue((self.experts[i] for i in there), metric=self.metric)

    def position(self, id: str) -> int:
        """Where an expert stands in every score; KeyError when it is not here."""
        return self._positions[id]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {id: i for i, id in enumerate(self.ids)}

    @cached_property
    def instructions(self) -> VectorIndex:
        """Task instructions, several an expert."""
        return VectorIndex([e.artefacts.instructions for e in self.experts])

    @cached_property
    def map(self) -> InstructionMap:
        """Task instructions on a plane, to look at."""
        return InstructionMap(self.ids, [e.artefacts.instructions for e in self.experts])

    @cached_property
    def centroids(self) -> VectorIndex:
        """Prototypes of un-adapted input features, several an expert."""
        return VectorIndex([e.artefacts.centroids for e in self.experts])

    @cached_property
    def means(self) -> VectorIndex:
        """One centroid an expert: the mean of its features (DAM, section 3.2)."""
        first = [e.artefacts.centroids for e in self.experts]
        return VectorIndex([None if c is None else c[:1] for c in first])

    @cached_property
    def stored(self) -> VectorIndex:
        """All that is stored of inputs: an expert's training examples, or else its prototypes."""
        own = [e.artefacts for e in self.experts]
        return VectorIndex([a.centroids if a.examples is None else a.examples for a in own])

    def densities(self, query: Features) -> Tensor | None:
        """Log-densities (E,) of a query's input by expert, relative to the background's.

        None where nothing tells.
        """
        white_F = query.white(self.metric) if self.metric else None
        if self.metric is None or white_F is None:
            return None
        return self._densities.of(white_F, self.metric.background(white_F))

    @cached_property
    def _densities(self) -> Densities:
        return Densities([e.gaussian for e in self.experts])

    @cached_property
    def choices(self) -> LabelIndex:
        """Label wordings, or prototypes of choices."""
        return LabelIndex(self.experts)


class LabelIndex:
    """Choice vectors compared with a question's choices, both ways.

    Wordings are compared as embeddings only: equal strings have no special standing.
    """

    def __init__(self, experts: Sequence[Routed]) -> None:
        self.vectors = VectorIndex([e.artefacts.choices for e in experts])
        owned = [(i, e) for i, e in enumerate(experts) if e.forms]
        tensors = [t for _, e in owned if (t := e.artefacts.choices) is not None]
        self._all_FD = torch.cat([t.float() for t in tensors]) if tensors else torch.zeros(0, 0)
        sizes = [forms for _, e in owned for forms in e.forms]
        self._label_F = torch.repeat_interleave(torch.tensor(sizes, dtype=torch.long))
        self._expert_L = torch.tensor([i for i, e in owned for _ in e.forms], dtype=torch.long)

    def scores(self, choice_CD: Tensor) -> tuple[Tensor, Tensor]:
        """How well a question's choices and an expert's labels cover each other.

        Returns:
            (E,) the mean over choices of the nearest wording; (E,) the mean over the expert's
            labels of the nearest choice, the same as the first where the expert has no labels.
        """
        forward_E = self.vectors.best(choice_CD).mean(dim=0)
        if not len(self._all_FD):
            return forward_E, forward_E
        near_F = (self._all_FD @ choice_CD.float().T).amax(dim=1)
        near_L = torch.full(self._expert_L.shape, UNSCORED).scatter_reduce(
            0, self._label_F, near_F, "amax"
        )
        backward_E = forward_E.scatter_reduce(0, self._expert_L, near_L, "mean", include_self=False)
        return forward_E, backward_E
