"""An expert in memory: its tensors by site, ready for the primitive.

Knows neither where they came from nor which request will use them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

SiteTensors = Mapping[str, Tensor]
"""The tensors of one expert at one site, by the kind's short names."""


@dataclass(frozen=True, eq=False)
class ExpertWeights:
    """One loaded expert.

    Attributes:
        id: the expert's id. version: its version; (id, version) names these tensors for good.
        kind: how it changes the backbone. group: experts merge only with equal groups.
        sites: site name -> the kind's tensors there.
        vectors: artefact name ("gate", "arrow") -> site name -> vector (D,), written out.
        inert: sites it holds tensors for that cannot reach the backbone's output.
    """

    id: str
    kind: str
    group: Hashable
    sites: Mapping[str, SiteTensors]
    vectors: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    inert: tuple[str, ...] = ()
    version: int = 1

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor it holds."""
        for site in self.sites.values():
            yield from site.values()
        for by_site in self.vectors.values():
            yield from by_site.values()

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors())
