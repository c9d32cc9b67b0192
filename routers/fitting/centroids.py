"""Prototypes of feature vectors: their mean first, then the centres of spherical k-means."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

ROUNDS = 20


def prototypes(feature_MD: Tensor, count: int, seed: int = 0) -> Tensor:
    """The normalised mean (DAM's centroid) and `count` k-means centres: (1 + count, D).

    Fewer when there are fewer vectors. All rows are unit vectors.
    """
    mean_1D = F.normalize(feature_MD.mean(dim=0, keepdim=True), dim=-1)
    return torch.cat([mean_1D, spherical_kmeans(feature_MD, count, seed)])


def spherical_kmeans(feature_MD: Tensor, count: int, seed: int = 0) -> Tensor:
    """Centres (at most `count`, D) that maximise each vector's cosine with its centre."""
    generator = torch.Generator().manual_seed(seed)
    count = min(count, len(feature_MD))
    centre_KD = feature_MD[torch.randperm(len(feature_MD), generator=generator)[:count]]
    for _ in range(ROUNDS):
        nearest_M = (feature_MD @ centre_KD.T).argmax(dim=1)
        sum_KD = torch.zeros_like(centre_KD).index_add_(0, nearest_M, feature_MD)
        empty_K1 = (torch.bincount(nearest_M, minlength=count) == 0).unsqueeze(1)
        centre_KD = torch.where(empty_K1, centre_KD, F.normalize(sum_KD, dim=-1))
    return centre_KD
