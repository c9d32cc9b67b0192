"""Rules that combine factors or parameters: average, task arithmetic, LoraHub.

Pure functions from experts, weights and parameters to the merged expert's tensors by site; `plan`
has checked their arguments. An expert that lacks a site adds nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from experts.kinds import KINDS
from experts.merging.deltas import no_wider
from experts.weights import ExpertWeights, SiteTensors


def average(
    experts: Sequence[ExpertWeights], weights: Sequence[float], parameters: Mapping[str, float]
) -> dict[str, SiteTensors]:
    """The exact weighted mean by the kind's own merge rule; of LoRA, the mean of the deltas."""
    return _sum(experts, weights)


def task_arithmetic(
    experts: Sequence[ExpertWeights], weights: Sequence[float], parameters: Mapping[str, float]
) -> dict[str, SiteTensors]:
    """`lambda * sum_i w_i delta_i` (Ilharco et al. 2023, section 3)."""
    return _sum(experts, [parameters["lambda"] * w for w in weights])


def lorahub(
    experts: Sequence[ExpertWeights], weights: Sequence[float], parameters: Mapping[str, float]
) -> dict[str, SiteTensors]:
    """`A = sum_i w_i A_i` and `B = sum_i w_i B_i` apart (Huang et al. 2023, section 3.2).

    Not a sum of deltas: the merged delta is quadratic in the weights and has cross terms between
    experts, and one expert at weight w acts as w^2 of it. That is the paper's rule and its code's;
    nothing else here combines factors apart. A LoRA's scaling is part of B.
    """
    merged: dict[str, SiteTensors] = {}
    for site in dict.fromkeys(s for e in experts for s in e.sites):
        there = zip(experts, weights, strict=True)
        here = [(e.sites[site], w) for e, w in there if site in e.sites]
        like = here[0][0]["A"]
        weight_E = torch.tensor([w for _, w in here], dtype=like.dtype, device=like.device)
        merged[site] = {
            part: torch.tensordot(weight_E, torch.stack([t[part] for t, _ in here]), dims=1)
            for part in ("A", "B")
        }
    return merged


def _sum(experts: Sequence[ExpertWeights], weights: Sequence[float]) -> dict[str, SiteTensors]:
    """What the kind itself makes of a weighted mix; LoRA no wider than full rank."""
    merged = KINDS[experts[0].kind].merge(experts, weights).sites
    lora = experts[0].kind == "lora"
    return {site: no_wider(t) if lora else t for site, t in merged.items()}
