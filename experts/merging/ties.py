"""TIES (Yadav et al. 2023, section 4): trim, elect signs, merge what agrees.

Pure functions on dense deltas. An expert is trimmed over its whole vector, all of its sites
together, as in the paper and its code; PEFT trims tensor by tensor, and A and B apart. Trimming
an expert does not depend on the others. Sites are recomputed rather than kept: all deltas of a
library at once would be gigabytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from experts.merging.deltas import as_factors, delta
from experts.weights import ExpertWeights, SiteTensors


def ties(
    experts: Sequence[ExpertWeights], weights: Sequence[float], parameters: Mapping[str, float]
) -> dict[str, SiteTensors]:
    """`lambda` times the disjoint mean of the trimmed deltas, exactly, as factors of full rank.

    A sign whose total is exactly zero is that of most elected signs, over all sites.
    """
    floors = [floor_of(whole_vector(e), parameters["density"]) for e in experts]

    def trimmed(site: str) -> Tensor:
        here = zip(experts, floors, strict=True)
        return torch.stack([trim(delta(e.sites[site]), f) for e, f in here if site in e.sites])

    sites = dict.fromkeys(s for e in experts for s in e.sites)
    signs = {site: elect(trimmed(site)).to(torch.int8) for site in sites}
    majority = 1 if sum(int(sign.sum(dtype=torch.long)) for sign in signs.values()) > 0 else -1
    merged: dict[str, SiteTensors] = {}
    for site, sign in signs.items():
        elected = torch.where(sign == 0, majority, sign)
        merged[site] = as_factors(parameters["lambda"] * disjoint_mean(trimmed(site), elected))
    return merged


def whole_vector(expert: ExpertWeights) -> Tensor:
    """Every number (N,) that an expert adds to the backbone."""
    return torch.cat([delta(factors).flatten() for factors in expert.sites.values()])


def floor_of(vector_N: Tensor, density: float) -> float:
    """The smallest magnitude that is kept when the largest `density` of a vector is."""
    kept = max(1, int(density * vector_N.numel()))
    return float(vector_N.abs().kthvalue(vector_N.numel() - kept + 1).values)


def trim(tensor: Tensor, floor: float) -> Tensor:
    """Zero where the magnitude is below `floor`; equal magnitudes share one fate."""
    return torch.where(tensor.abs() >= floor, tensor, 0.0)


def elect(stack: Tensor) -> Tensor:
    """The sign of the total over the experts, along axis 0; 0 where the total is zero."""
    return stack.sum(dim=0).sign()


def disjoint_mean(stack: Tensor, sign: Tensor) -> Tensor:
    """The mean over axis 0 of the entries that have the elected sign; 0 where none has."""
    agrees = stack.sign() == sign
    return torch.where(agrees, stack, 0.0).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
