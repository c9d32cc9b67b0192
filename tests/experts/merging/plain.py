"""Slow twins of the merge rules, written from the papers: dense tensors and loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from experts.weights import ExpertWeights


def dense(expert: ExpertWeights, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """The expert's deltas (D, O) at every site, zero where it has none."""
    return {
        site: sum(
            (torch.outer(a, b) for a, b in zip(t["A"], t["B"], strict=True)),
            start=torch.zeros(shape, dtype=torch.float64),
        )
        if (t := expert.sites.get(site))
        else torch.zeros(shape, dtype=torch.float64)
        for site, shape in shapes.items()
    }


def ties(vectors: Sequence[Tensor], kept: Sequence[int], scale: float) -> Tensor:
    """TIES of whole task vectors, entry by entry; `kept` is how many entries each one keeps."""
    trimmed = []
    for vector, count in zip(vectors, kept, strict=True):
        order = sorted(range(len(vector)), key=lambda i, v=vector: -abs(float(v[i])))
        short = torch.zeros_like(vector)
        short[order[:count]] = vector[order[:count]]
        trimmed.append(short)
    totals = [float(sum(column)) for column in zip(*trimmed, strict=True)]
    signs = [(t > 0) - (t < 0) for t in totals]
    majority = 1 if sum(signs) > 0 else -1
    merged = torch.zeros_like(trimmed[0])
    for i, sign in enumerate(signs):
        agreeing = [float(t[i]) for t in trimmed if float(t[i]) * (sign or majority) > 0]
        merged[i] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return scale * merged
