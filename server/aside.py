"""A library as routers would see it, were its experts' inputs described by another metric.

Calibration works on this: in memory, so that the library's folder stays as it is until all is
known. Writes nothing and asks nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experts.artefacts import Artefacts
from routers.catalogue import Catalogue
from routers.fitting.inputs import mean_and_spread
from routers.metric import Metric
from routers.shortlist import Shortlist
from server.engine.view import Built, gaussians_of, statement_map_of


@dataclass(frozen=True, eq=False)
class Inputs:
    """What an expert's artefacts say of its inputs: `Artefacts.inputs`, as stored, and `seen`."""

    told_PF: Tensor
    seen: int

    @classmethod
    def of(cls, feature_MF: Tensor, metric: Metric) -> Inputs:
        """Of the features of these inputs, by a metric."""
        return cls(mean_and_spread(feature_MF, metric).half(), len(feature_MF))

    def put_into(self, artefacts: Artefacts) -> Artefacts:
        """Artefacts that say this of inputs, and all else as before."""
        return replace(artefacts, inputs=self.told_PF.float(), seen=self.seen)

    def are_in(self, artefacts: Artefacts) -> bool:
        """Whether artefacts say this already."""
        told_PF = artefacts.inputs
        if told_PF is None or artefacts.seen != self.seen:
            return False
        return torch.equal(told_PF.half(), self.told_PF)


class Aside:
    """The experts of a library with other inputs.

    Args:
        built: the library as it is. told: what experts say of their inputs instead, by id; all
            others say what they did.
    """

    def __init__(self, built: Built, told: Mapping[str, Inputs]) -> None:
        self._built = built
        self._experts = [
            (e, told.get(e.id) or _stored(built, e.id)) for e in built.shortlist.catalogue.experts
        ]

    def catalogue(
        self, metric: Metric | None, anew: Mapping[str, Inputs] | None = None
    ) -> Catalogue:
        """The routable experts by a metric; some of them with yet `anew` told inputs, by id."""
        inputs = [(anew or {}).get(e.id) or t for e, t in self._experts]
        told = [(t and t.told_PF.float(), t.seen if t else 0) for t in inputs]
        gaussians = gaussians_of(told, metric)
        experts = [
            replace(e, gaussian=g) for (e, _), g in zip(self._experts, gaussians, strict=True)
        ]
        return Catalogue(experts, metric=metric)

    def built(self, tensors: Mapping[str, Tensor], width: int, feature_width: int) -> Built:
        """What would be in force, were these the tensors of the library's constants.

        Args:
            width, feature_width: of the backbone.
        """
        read = {name: tensor.float() for name, tensor in tensors.items()}
        metric = Metric.from_tensors(read, feature_width)
        return replace(
            self._built, shortlist=Shortlist(self.catalogue(metric)), note=None,
            placing=statement_map_of(read, width),
        )  # fmt: skip

    def without(self, gone: Collection[str], built: Built, metric: Metric | None) -> Built:
        """What is built, as if these experts had never joined.

        Args:
            metric: of the other experts' tasks.
        """
        catalogue = self.catalogue(metric)
        others = [id for id in catalogue.ids if id not in gone]
        return replace(built, shortlist=Shortlist(catalogue.among(others)))


def _stored(built: Built, id: str) -> Inputs | None:
    artefacts = built.snapshot.entries[id].read_artefacts()
    told_PF = artefacts.inputs
    return None if told_PF is None else Inputs(told_PF.half(), artefacts.seen)
