"""How inputs of one task vary, and how likely an input is to be of an expert's sort.

Linear discriminants (Fisher 1936; Hastie et al., The Elements of Statistical Learning, 4.3): inputs
of a task are taken as normally distributed around the task's mean, with a covariance that all
tasks share. That is the library's `Metric`, fitted once. An expert that joins later may vary where
the library's own do not, so it brings the few directions in which it varies most beyond that: its
covariance is the library's plus a sum of their squares. Nothing of another expert changes.

The metric also knows how the tasks' means lie to one another: inputs of any task whatever are taken
as one wide Gaussian, the background. A density says by how much an expert explains an input better
than that does (the relative Mahalanobis distance of Ren et al. 2021, "A Simple Fix to Mahalanobis
Distance for Improving Near-OOD Detection"), so it is also evidence of whether any expert fits.

Knows features as numbers, and neither texts nor backbones.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

FARTHEST = -10_000.0
"""The least log-density that is told apart, and what stands where an expert's is not known."""
LEAST_SEEN = 16
"""Inputs below which their mean says too little: by chance it would be nearest to many."""
SHRINK = 0.003
"""Share of the mean variance in the library's covariance: keeps what never varies finite."""
LEAST_VARIANCE = 1e-6
"""Inputs that hardly vary are no reason for numbers that half precision cannot hold."""
MOST_BETWEEN = 64
"""Directions kept of how the tasks' means differ."""
WHITENING, CENTRE, BETWEEN = "input_whitening", "input_centre", "input_between"


@dataclass(frozen=True, eq=False, slots=True)
class Gaussian:
    """Inputs of one expert, whitened, or of K experts with as many directions each.

    The squared distance is |z - mean|^2 - |turn (z - mean)|^2. All numbers lie in one tensor:
    routers keep thousands of these, and several small tensors each would take more memory than
    the numbers and more time to fetch than to sum.

    Attributes:
        packed: bytes (N,), or (K, N): the figures, the mean, the turn, and zeros up to a multiple
            of 4. width: F. rows: R, of the turn.
    """

    packed: Tensor
    width: int
    rows: int

    @classmethod
    def pack(cls, mean_KF: Tensor, turn_KRF: Tensor, offset_K: Tensor) -> Gaussian:
        """Means in half precision, and turns in 8 bits a number, a scale a row."""
        count, rows, width = turn_KRF.shape
        mean_KF = mean_KF.half()
        scale_KR = turn_KRF.abs().amax(dim=-1).clamp(min=1e-12) / 127
        small_KRF = (turn_KRF / scale_KR[..., None]).round_().to(torch.int8)
        along_KR = (small_KRF.float() * mean_KF.float()[:, None]).sum(dim=-1) * scale_KR
        figures = torch.cat([offset_K[:, None].float(), scale_KR, along_KR], dim=1)
        parts = [figures.view(torch.int8), mean_KF.view(torch.int8), small_KRF.flatten(1)]
        missing = -sum(part.shape[1] for part in parts) % 4
        filled = [*parts, torch.zeros(count, missing, dtype=torch.int8)]
        return cls(torch.cat(filled, dim=1), width, rows)

    @classmethod
    def stack(cls, alike: Sequence[Gaussian]) -> Gaussian:
        """One of several, which have as many rows each."""
        first = alike[0]
        return cls(torch.stack([g.packed for g in alike]), first.width, first.rows)

    def unbind(self) -> list[Gaussian]:
        """Each by itself; they share memory."""
        return [Gaussian(packed, self.width, self.rows) for packed in self.packed.unbind()]

    @property
    def figures(self) -> Tensor:
        """The offset; the scale of each row of the turn; where the mean lies along each.

        The offset is added to half the negative squared distance: the log-determinant, and what a
        mean of few inputs is off by.
        """
        return self.packed[..., : 4 * self._figures].view(torch.float32)

    @property
    def mean(self) -> Tensor:
        """(..., F), in half precision."""
        begin = 4 * self._figures
        return self.packed[..., begin : begin + 2 * self.width].view(torch.float16)

    @property
    def turn(self) -> Tensor:
        """(..., R * F) in 8 bits, row by row, each yet to be scaled."""
        begin = 4 * self._figures + 2 * self.width
        return self.packed[..., begin : begin + self.rows * self.width]

    @property
    def _figures(self) -> int:
        return 1 + 2 * self.rows


@dataclass(frozen=True, eq=False)
class Metric:
    """The library's within-task covariance as a map that whitens: `(x - centre) @ whitening`.

    Attributes:
        centre_F: the mean of the tasks' means. whitening_FF: lower triangular.
        between_RF: directions in which the tasks' means differ, as long as they deviate there.
    """

    centre_F: Tensor
    whitening_FF: Tensor
    between_RF: Tensor

    @classmethod
    def of(cls, means_EF: Tensor, covariance_FF: Tensor) -> Metric:
        """The metric of tasks' means and of the covariance they share (both float64)."""
        width = len(covariance_FF)
        mean_variance = covariance_FF.diagonal().mean().clamp(min=LEAST_VARIANCE)
        eye_FF = torch.eye(width, dtype=torch.float64)
        shrunk_FF = (1 - SHRINK) * covariance_FF + SHRINK * mean_variance * eye_FF
        whitening_FF = torch.linalg.cholesky(torch.linalg.inv(shrunk_FF)).float()
        centre_F = means_EF.mean(dim=0)
        apart_EF = (means_EF - centre_F) / math.sqrt(len(means_EF))
        _, length_R, turn_RF = torch.linalg.svd(apart_EF, full_matrices=False)
        kept = min(len(means_EF) - 1, MOST_BETWEEN)
        between_RF = (length_R[:, None] * turn_RF)[:kept]
        return cls(centre_F.float(), whitening_FF, between_RF.float())

    def tensors(self) -> dict[str, Tensor]:
        """As it is stored: half precision, of the triangle only what is not zero."""
        width = len(self.centre_F)
        below = torch.tril_indices(width, width)
        return {
            CENTRE: self.centre_F.half(),
            WHITENING: self.whitening_FF[tuple(below)].half(),
            BETWEEN: self.between_RF.half(),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], width: int) -> Metric | None:
        """The inverse of `tensors`; None where they are not there, or of another width."""
        centre_F, packed, between_RF = (tensors.get(n) for n in (CENTRE, WHITENING, BETWEEN))
        if centre_F is None or packed is None or between_RF is None:
            return None
        if centre_F.shape != (width,) or packed.shape != (width * (width + 1) // 2,):
            return None
        if between_RF.ndim != 2 or between_RF.shape[1] != width:
            return None
        if not all(t.isfinite().all() for t in (centre_F, packed, between_RF)):
            return None
        whitening_FF = torch.zeros(width, width)
        whitening_FF[tuple(torch.tril_indices(width, width))] = packed.float()
        return cls(centre_F.float(), whitening_FF, between_RF.float())

    def whiten(self, feature_BF: Tensor) -> Tensor:
        """Features as the metric sees them: within a task, of unit variance everywhere."""
        return (feature_BF.float() - self.centre_F) @ self.whitening_FF

    def background(self, white_F: Tensor) -> Tensor:
        """Log-density (a scalar) of a whitened input as one of any task whatever."""
        turn_RF, log_determinant = self._between
        return 0.5 * ((turn_RF @ white_F).square().sum() - white_F.square().sum() - log_determinant)

    @cached_property
    def _between(self) -> tuple[Tensor, Tensor]:
        turn_RF, log_determinant = _turn(self.between_RF @ self.whitening_FF)
        return turn_RF, log_determinant.float()

    def gaussian(self, inputs_PF: Tensor, seen: int) -> Gaussian:
        """What an expert's artefact says, whitened.

        Args:
            inputs_PF: its `inputs`: the mean, then directions. seen: of how many inputs.
        """
        (found,) = self.gaussians([inputs_PF], [seen])
        return found

    def gaussians(self, inputs: Sequence[Tensor], seen: Sequence[int]) -> list[Gaussian]:
        """`gaussian` of E experts in few products: those with as many directions go together."""
        alike: dict[int, list[int]] = defaultdict(list)
        for e, inputs_PF in enumerate(inputs):
            alike[len(inputs_PF)].append(e)
        found: dict[int, Gaussian] = {}
        for group in alike.values():
            stacked_EPF = torch.stack([inputs[e] for e in group]).float()
            told = self._alike(stacked_EPF, [seen[e] for e in group])
            found.update(zip(group, told, strict=True))
        return [found[e] for e in range(len(inputs))]

    def _alike(self, inputs_EPF: Tensor, seen: Sequence[int]) -> list[Gaussian]:
        count, rows, width = inputs_EPF.shape
        mean_EF = self.whiten(inputs_EPF[:, 0])
        spread_NF = inputs_EPF[:, 1:].reshape(-1, width) @ self.whitening_FF  # one product for all
        turn_ERF, log_determinant_E = _turn(spread_NF.view(count, rows - 1, width))
        off_E = width / torch.tensor(seen).clamp(min=1).double()
        return Gaussian.pack(mean_EF, turn_ERF, 0.5 * (off_E - log_determinant_E)).unbind()


class Densities:
    """The Gaussians of E experts, compared with one whitened input at a time."""

    def __init__(self, gaussians: Sequence[Gaussian | None]) -> None:
        self.count = len(gaussians)
        alike: dict[int, list[tuple[int, Gaussian]]] = defaultdict(list)
        for e, gaussian in enumerate(gaussians):
            if gaussian is not None:
                alike[gaussian.rows].append((e, gaussian))
        self._alike = [_Alike(Gaussian.stack([g for _, g in group])) for group in alike.values()]
        self._owner_K = torch.tensor([e for group in alike.values() for e, _ in group])

    def of(self, white_F: Tensor, background: Tensor | float = 0.0) -> Tensor | None:
        """Log-densities (E,) relative to the background's; None where none is known.

        What all have in common is left out. An expert without a Gaussian gets `FARTHEST`.
        """
        if not self._alike:
            return None
        density_K = torch.cat([alike.of(white_F) for alike in self._alike])
        density_K = (density_K - background).clamp(min=FARTHEST + 1)
        return torch.full((self.count,), FARTHEST).index_copy(0, self._owner_K, density_K)


class _Alike:
    """K Gaussians with as many directions each, in the numbers that sums are done in."""

    def __init__(self, gaussians: Gaussian) -> None:
        rows = gaussians.rows
        self._mean_KF = gaussians.mean.float()
        self._turn_PF = gaussians.turn.float().view(-1, gaussians.width)
        figures = gaussians.figures.split([1, rows, rows], dim=1)
        self._offset_K1, self._scale_KR, self._along_KR = figures

    def of(self, white_F: Tensor) -> Tensor:
        """Log-densities (K,), up to a number that all have in common."""
        distance_K = (self._mean_KF - white_F).square().sum(dim=1)
        turned_KR = (self._turn_PF @ white_F).view(self._scale_KR.shape) * self._scale_KR
        distance_K -= (turned_KR - self._along_KR).square().sum(dim=1)
        return self._offset_K1[:, 0] - 0.5 * distance_K


def covariance(feature_MF: Tensor) -> Tensor:
    """(F, F) covariance around the features' own mean."""
    centred_MF = feature_MF - feature_MF.mean(dim=0)
    return centred_MF.T @ centred_MF / len(feature_MF)


def _turn(spread_ERF: Tensor) -> tuple[Tensor, Tensor]:
    """(1 + V V^T)^-1/2 V of whitened directions V, and log det (1 + V V^T), (E,) or a scalar."""
    V_ERF = spread_ERF.double()
    value_ER, vector_ERR = torch.linalg.eigh(V_ERF @ V_ERF.mT)
    grown_ER = 1 + value_ER.clamp(min=0)
    turn_ERF = (vector_ERR * grown_ER.rsqrt()[..., None, :]) @ vector_ERR.mT @ V_ERF
    return turn_ERF.float(), grown_ER.log().sum(dim=-1)
