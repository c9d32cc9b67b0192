"""Nearest vectors by owner: many unit vectors per expert, one best score per expert.

A faiss inner-product index. Knows nothing of what the vectors mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import torch
from torch import Tensor

UNSCORED = -1.0
"""The score of an expert that has no vectors: the least a cosine can be."""
NEIGHBOURS = 2048
"""How many vectors are looked at, the nearest first."""


class VectorIndex:
    """Unit vectors, each owned by one of E experts."""

    def __init__(self, per_expert: Sequence[Tensor | None], width: int) -> None:
        self.experts = len(per_expert)
        owned = [(e, v) for e, v in enumerate(per_expert) if v is not None and len(v)]
        self._index = faiss.IndexFlatIP(width)
        self._owner_P = torch.zeros(0, dtype=torch.long)
        if owned:
            self._owner_P = torch.cat([torch.full((len(v),), e) for e, v in owned])
            self._index.add(torch.cat([v for _, v in owned]).float().contiguous().numpy())
        self._owned_E = torch.zeros(self.experts, dtype=torch.bool)
        self._owned_E[self._owner_P] = True

    def best(self, query_QD: Tensor) -> Tensor:
        """For each query and expert the largest cosine with one of the expert's vectors: (Q, E).

        An expert with no vector among the nearest gets the least of their cosines.
        """
        best_QE = torch.full((len(query_QD), self.experts), UNSCORED)
        if not len(self._owner_P) or not len(query_QD):
            return best_QE
        near = min(NEIGHBOURS, len(self._owner_P))
        score, found = self._index.search(query_QD.float().contiguous().numpy(), near)
        owner_QP = self._owner_P[torch.from_numpy(found)]
        score_QP = torch.from_numpy(score)
        best_QE[:, self._owned_E] = score_QP[:, -1:]
        return best_QE.scatter_reduce(1, owner_QP, score_QP, "amax")
