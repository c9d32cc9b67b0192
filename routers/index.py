"""Best vector by owner: many unit vectors per expert, one best score per expert.

Exact: one product compares a query with all of them. Which experts of a large library are worth
that is for `routers.sieve` to say. Knows nothing of what the vectors mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

UNSCORED = -1.0
"""The score of an expert that has no vectors: the least a cosine can be."""


def owned(per_expert: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """All experts' vectors together: (P,) whose each is, by position, and (P, D) they.

    Where there is none, D is 0: what no expert has is of no width.
    """
    there = [(e, v.size(0), v) for e, v in enumerate(per_expert) if v is not None]
    if not there:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, 0)
    positions, counts, vectors = zip(*there, strict=True)
    return torch.tensor(positions).repeat_interleave(torch.tensor(counts)), torch.cat(vectors)


class VectorIndex:
    """Unit vectors, each owned by one of E experts."""

    def __init__(self, per_expert: Sequence[Tensor | None]) -> None:
        self.experts = len(per_expert)
        self._owner_P, vector_PD = owned(per_expert)
        self._vector_PD = vector_PD.float()

    def best(self, query_QD: Tensor) -> Tensor:
        """For each query and expert the largest cosine with one of the expert's vectors: (Q, E)."""
        best_QE = torch.full((len(query_QD), self.experts), UNSCORED)
        if not len(self._owner_P):
            return best_QE
        score_QP = self._scores(query_QD)
        return best_QE.scatter_reduce(1, self._owner_P.expand_as(score_QP), score_QP, "amax")

    def votes(self, query_QD: Tensor, count: int) -> Tensor:
        """For each query and expert the sum of cosines of its vectors among the nearest: (Q, E).

        Args:
            count: how many nearest vectors vote; their cosines break ties of numbers.
        """
        vote_QE = torch.zeros(len(query_QD), self.experts)
        if not len(self._owner_P):
            return vote_QE
        near = self._scores(query_QD).topk(min(count, len(self._owner_P)), dim=1)
        return vote_QE.scatter_add(1, self._owner_P[near.indices], near.values)

    def _scores(self, query_QD: Tensor) -> Tensor:
        return query_QD.float() @ self._vector_PD.T
