"""An expert on the host: checked, fitted to the backbone's sites, and still in its file's numbers.

Half the size of what computes, where files are in half precision, and nearly ready: one cast and a
multiplication a site. Knows no files and no cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from experts.errors import CorruptExpert
from experts.packed import Key, Packed
from experts.weights import ExpertWeights

Nested = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, eq=False)
class HostExpert:
    """One expert, its tensors in the file's dtype.

    Attributes:
        about: the expert without tensors. sites, vectors: its tensors, by (site, part) and by
            (artefact, site). scales: (site, part) -> what that tensor is multiplied by for use.
    """

    about: ExpertWeights
    sites: Packed
    vectors: Packed
    scales: Mapping[Key, float]

    @classmethod
    def of(cls, expert: ExpertWeights, scales: Mapping[Key, float], vectors: Nested) -> Self:
        """Pack what a kind read.

        Args:
            expert: tensors in the file's dtype, scalings not folded in. vectors: artefact -> site
                -> vector (D,), of token routing.
        """
        about = replace(expert, sites={}, vectors={})
        return cls(about, Packed.of(_flat(expert.sites)), Packed.of(_flat(vectors)), scales)

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors."""
        return self.sites.nbytes + self.vectors.nbytes

    def named(self, id: str, version: int) -> Self:
        """The same under another id and version."""
        return replace(self, about=replace(self.about, id=id, version=version))

    def materialise(self, dtype: torch.dtype, device: torch.device | str) -> ExpertWeights:
        """The expert as the primitive takes it, on its device; the host keeps its own.

        Raises:
            CorruptExpert: a number overflows, once it is scaled or cast.
        """
        sites = self.sites.to(dtype, device, self.scales)
        if bad := sites.infinite():
            names = [".".join(name) for name in bad]
            raise CorruptExpert("Tensors hold NaN or infinity.", tensors=names)
        vectors = self.vectors.to(dtype, device, {})
        return replace(self.about, sites=_nested(sites), vectors=_nested(vectors))


def _flat(nested: Nested) -> dict[Key, Tensor]:
    return {(outer, inner): t for outer, parts in nested.items() for inner, t in parts.items()}


def _nested(packed: Packed) -> dict[str, dict[str, Tensor]]:
    nested: dict[str, dict[str, Tensor]] = {}
    for (outer, inner), tensor in packed.tensors().items():
        nested.setdefault(outer, {})[inner] = tensor
    return nested
