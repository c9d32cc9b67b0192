"""A flat map of unit vectors, to look at: the plane in which they vary most.

Places on it are for people. Nothing is routed by them: two vectors that lie together on the map may
be far apart, and only cosines say what is near.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor
from torch.nn.functional import normalize

from routers.index import owned

ALL_AT_ONCE = 1024
"""Up to so many rows of a matrix all its eigenvalues are found: a tenth of a second."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Two directions through the middle of some vectors (principal components; Pearson, 1901).

    Attributes:
        middle_D: their mean. axes_2D: unit vectors at right angles; zero where the vectors vary in
            fewer directions. told_2: which part of all variance lies along each.
    """

    middle_D: Tensor
    axes_2D: Tensor
    told_2: Tensor

    @classmethod
    def through(cls, vector_PD: Tensor) -> Plane:
        """The plane of P vectors: the same for the same vectors, in double precision."""
        vector_PD = vector_PD.double()
        count, width = vector_PD.shape
        middle_D = vector_PD.sum(dim=0) / max(1, count)
        apart_PD = vector_PD - middle_D
        axes_2D, told_2 = vector_PD.new_zeros(2, width), vector_PD.new_zeros(2)
        noise = torch.finfo(torch.float).eps ** 2 * max(1, count)  # unit vectors, single precision
        total = apart_PD.square().sum()
        if total > noise:
            shown = min(2, width, count)
            told_2[:shown], axes_2D[:shown] = _greatest(apart_PD, shown)
            axes_2D[told_2 < noise] = 0.0
            told_2 /= total
        return cls(middle_D, _upright(axes_2D), told_2)

    def place(self, vector_PD: Tensor) -> Tensor:
        """Where vectors lie on the map: (P, 2)."""
        return (vector_PD.double() - self.middle_D) @ self.axes_2D.T


def _greatest(apart_PD: Tensor, shown: int) -> tuple[Tensor, Tensor]:
    """How much of the squares lies along the directions that have most, and these: (shown, D).

    The eigenvalues of the smaller of the two products of the matrix with itself. All of them take
    minutes where many vectors are wide; there a few are found in seconds (ARPACK: Lehoucq, Sorensen
    and Yang, 1998), from the same beginning each time.
    """
    count, width = apart_PD.shape
    if count < width and count <= ALL_AT_ONCE:
        square_K, vector_KP = _greatest_of(apart_PD @ apart_PD.T, shown)
        return square_K, normalize(vector_KP @ apart_PD)
    return _greatest_of(apart_PD.T @ apart_PD, shown)


def _greatest_of(product_NN: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The greatest eigenvalues (count,) of a symmetric matrix, and their vectors (count, N)."""
    if len(product_NN) <= ALL_AT_ONCE:
        value_N, vector_NN = torch.linalg.eigh(product_NN)
    else:
        begun_N = np.ones(len(product_NN))
        found = eigsh(product_NN.numpy(), k=count, v0=begun_N)
        value_N, vector_NN = (torch.from_numpy(part.copy()) for part in found)
    # Both say the least first.
    return value_N.flip(0)[:count].clamp_min(0), vector_NN.T.flip(0)[:count]


def _upright(axes_2D: Tensor) -> Tensor:
    """The axes with their largest part positive: either end of one may come out first."""
    if not axes_2D.shape[1]:
        return axes_2D
    largest_21 = axes_2D.gather(1, axes_2D.abs().argmax(dim=1, keepdim=True))
    return torch.where(largest_21 < 0, -axes_2D, axes_2D)


@dataclass(frozen=True)
class Near:
    """An instruction of an expert near a vector: its number, and their cosine."""

    expert: str
    instruction: int
    similarity: float


class InstructionMap:
    """The instructions of some experts on one plane.

    Attributes:
        ids: of the experts. owner_P, number_P: whose each instruction is, as a place in `ids`, and
            which of its. plane: their plane. place_P2: where each lies on it.
    """

    def __init__(self, ids: Sequence[str], per_expert: Sequence[Tensor | None]) -> None:
        self.ids = tuple(ids)
        self.owner_P, vector_PD = owned(per_expert)
        self._vector_PD = vector_PD.float()
        counts = [len(t) for t in per_expert if t is not None]
        self.number_P = torch.tensor([n for count in counts for n in range(count)])
        self.plane = Plane.through(self._vector_PD)
        self.place_P2 = self.plane.place(self._vector_PD)

    def place(self, vector_D: Tensor) -> tuple[float, float]:
        """Where a vector lies; in the middle, where there are no instructions."""
        if not len(self._vector_PD):
            return 0.0, 0.0
        x, y = self.plane.place(vector_D.unsqueeze(0))[0].tolist()
        return x, y

    def near(self, vector_D: Tensor, count: int) -> list[Near]:
        """The instructions nearest to a unit vector, by cosine and not by the map; best first."""
        if not len(self._vector_PD):
            return []
        best = (self._vector_PD @ vector_D.float()).topk(min(count, len(self._vector_PD)))
        return [
            Near(self.ids[int(self.owner_P[p])], int(self.number_P[p]), float(cosine))
            for cosine, p in zip(best.values, best.indices.tolist(), strict=True)
        ]
