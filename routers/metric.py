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


@dataclass(frozen=True, eq=False)
class Gaussian:
    """An expert's inputs, whitened, as routers keep them for thousands of experts.

    Its squared distance is |z - mean|^2 - |turn (z - mean)|^2.

    Attributes:
        mean_F: in half precision. turn_RF: int8 rows, times `scale_R`. offset: what is added to
            half the negative squared distance: the log-determinant, and what a mean of few inputs
            is off by.
    """

    mean_F: Tensor
    turn_RF: Tensor
    scale_R: Tensor
    offset: float


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
        if centre_F is None or packed is None or between_RF is None or centre_F.shape != (width,):
            return None
        if between_RF.ndim != 2 or between_RF.shape[1] != width:
            return None
        if packed.shape != (width * (width + 1) // 2,) or not packed.isfinite().all():
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
    def _between(self) -> tuple[Tensor, float]:
        return _turn(self.between_RF @ self.whitening_FF)

    def gaussian(self, inputs_PF: Tensor, seen: int) -> Gaussian:
        """What an expert's artefact says, whitened.

        Args:
            inputs_PF: its `inputs`: the mean, then directions. seen: of how many inputs.
        """
        mean_1F = self.whiten(inputs_PF[:1])
        spread_RF = inputs_PF[1:].float() @ self.whitening_FF
        turn_RF, log_determinant = _turn(spread_RF)
        scale_R = turn_RF.abs().amax(dim=1).clamp(min=1e-12) / 127
        off = len(self.centre_F) / max(1, seen)
        return Gaussian(
            mean_1F[0].half(), (turn_RF / scale_R[:, None]).round().to(torch.int8), scale_R,
            0.5 * (off - log_determinant),
        )  # fmt: skip


class Densities:
    """The Gaussians of E experts, compared with one whitened input at a time."""

    def __init__(self, gaussians: Sequence[Gaussian | None]) -> None:
        self.count = len(gaussians)
        there = [(e, g) for e, g in enumerate(gaussians) if g is not None]
        self._owner_K = torch.tensor([e for e, _ in there], dtype=torch.long)
        rows = torch.tensor([len(g.turn_RF) for _, g in there], dtype=torch.long)
        self._owner_P = torch.arange(len(there)).repeat_interleave(rows)
        if there:
            self._mean_KF = torch.stack([g.mean_F for _, g in there]).float()
            turn_PF = torch.cat([g.turn_RF for _, g in there]).float()
            self._turn_PF = turn_PF * torch.cat([g.scale_R for _, g in there])[:, None]
            self._offset_K = torch.tensor([g.offset for _, g in there])
            along_P = (self._turn_PF * self._mean_KF[self._owner_P]).sum(dim=1)
            self._along_P = along_P

    def of(self, white_F: Tensor, background: Tensor | float = 0.0) -> Tensor | None:
        """Log-densities (E,) relative to the background's; None where none is known.

        What all have in common is left out. An expert without a Gaussian gets `FARTHEST`.
        """
        if not len(self._owner_K):
            return None
        distance_K = (self._mean_KF - white_F).square().sum(dim=1)
        along_P = (self._turn_PF @ white_F - self._along_P).square()
        distance_K = distance_K.index_add(0, self._owner_P, -along_P)
        density_K = self._offset_K - 0.5 * distance_K
        density_K = (density_K - background).clamp(min=FARTHEST + 1)
        return torch.full((self.count,), FARTHEST).index_copy(0, self._owner_K, density_K)


def covariance(feature_MF: Tensor) -> Tensor:
    """(F, F) covariance around the features' own mean."""
    centred_MF = feature_MF - feature_MF.mean(dim=0)
    return centred_MF.T @ centred_MF / len(feature_MF)


def _turn(spread_RF: Tensor) -> tuple[Tensor, float]:
    """(1 + V V^T)^-1/2 V of whitened directions V, and log det (1 + V V^T) (Woodbury)."""
    if not len(spread_RF):
        return spread_RF, 0.0
    V_RF = spread_RF.double()
    value_R, vector_RR = torch.linalg.eigh(V_RF @ V_RF.T)
    grown_R = 1 + value_R.clamp(min=0)
    turn_RF = (vector_RR * grown_R.rsqrt()) @ vector_RR.T @ V_RF
    return turn_RF.float(), float(grown_R.log().sum())
