"""A first sieve over thousands of experts: the ones whose vectors lie nearest, view by view.

Nearly surely, not exactly: who passes is scored exactly afterwards. A faiss index by size: flat
while that is fast, 4-bit product quantisation above (Jegou et al. 2011; faiss `PQ..x4fs`). Knows no
requests and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, zip_longest

import faiss
import torch
from torch import Tensor

from experts.artefacts import REQUEST_ARTEFACTS
from routers.catalogue import Routed
from routers.index import owned
from routers.types import Features

FLAT = 2048
"""Vectors up to which everything is compared: 0.3 ms."""
TRAINED_ON = 10_000
ROUNDS = 8  # of k-means; the usual 25 double the time and find no more
LEAST = 8  # vectors looked at for each of many choices


class Near:
    """Very many unit vectors, each owned by an expert, and the nearest few of them."""

    def __init__(self, per_expert: Sequence[Tensor | None]) -> None:
        self._owner_P, vector_PD = owned(per_expert)
        self._index = _index(vector_PD) if len(self._owner_P) else None

    def owners(self, query_QD: Tensor, count: int, here_E: Tensor | None = None) -> Iterable[int]:
        """Owners of about `count` vectors nearest to the queries, nearest first; some repeat.

        Args:
            here_E: booleans: who of the owners counts; None for all.
        """
        if not len(query_QD) or self._index is None:
            return ()
        each = min(max(LEAST, count // len(query_QD)), len(self._owner_P))
        _, found_QP = self._index.search(query_QD.float().contiguous().numpy(), each)
        rank_major = torch.from_numpy(found_QP).T.reshape(-1)
        found_N = self._owner_P[rank_major[rank_major >= 0]]
        return (found_N if here_E is None else found_N[here_E[found_N]]).tolist()


class Sieve:
    """The experts it was built from, and who of them comes near a query."""

    def __init__(self, experts: Sequence[Routed]) -> None:
        self.experts = tuple(experts)
        self.known = frozenset(map(id, self.experts))
        self.size = sum(len(v) for e in experts for v in e.artefacts.rows())
        self._instructions = Near([e.artefacts.instructions for e in experts])
        self._choices = Near([e.artefacts.choices for e in experts])
        self._inputs = Near([e.artefacts.centroids for e in experts])

    def nearest(
        self, query: Features, count: int, here_E: Tensor | None = None
    ) -> Iterator[Routed]:
        """Experts that own one of about `count` nearest vectors of a view, nearest first.

        The views take turns, so that none of them crowds out another.

        Args:
            here_E: booleans: who of `experts` may pass; None for all.
        """
        views: list[Iterable[int]] = []
        if query.instruction_D is not None:
            views.append(self._instructions.owners(query.instruction_D[None], count, here_E))
        if query.sentence_D is not None:
            views.append(self._instructions.owners(query.sentence_D[None], count, here_E))
        if query.choice_CD is not None:
            views.append(self._choices.owners(query.choice_CD, count, here_E))
        if query.input_D is not None:
            views.append(self._inputs.owners(query.input_D[None], count, here_E))
        seen: set[int | None] = {None}  # what fills up the shorter views
        for e in chain.from_iterable(zip_longest(*views)):
            if e not in seen:
                seen.add(e)
                yield self.experts[e]


class Part:
    """A sieve through which some of its experts pass, and no others.

    Attributes:
        share: how many of its experts these are, from 0 to 1.
    """

    def __init__(self, sieve: Sieve, passes: Callable[[Routed], bool]) -> None:
        self.sieve = sieve
        self._here_E = torch.tensor([passes(e) for e in sieve.experts], dtype=torch.bool)
        self.share = float(self._here_E.sum()) / max(1, len(self._here_E))

    def nearest(self, query: Features, count: int) -> Iterator[Routed]:
        """As `Sieve.nearest`, of those that pass."""
        return self.sieve.nearest(query, count, self._here_E)


def is_quick(experts: Sequence[Routed]) -> bool:
    """Whether a sieve of these experts is made in milliseconds: all its indexes are flat."""
    most = 0
    for name in REQUEST_ARTEFACTS:
        rows = (getattr(e.artefacts, name) for e in experts)
        most = max(most, sum(len(t) for t in rows if t is not None))
    return most <= FLAT


def _index(vector_PD: Tensor) -> faiss.Index:
    count, width = vector_PD.shape
    flat = count <= FLAT or width % 2
    spec = "Flat" if flat else f"PQ{width // 2}x4fs"
    index = faiss.index_factory(width, spec, faiss.METRIC_INNER_PRODUCT)
    rng = torch.Generator().manual_seed(0)
    if isinstance(index, faiss.IndexPQFastScan):
        index.pq.cp.niter = ROUNDS
        sample_P = torch.randperm(len(vector_PD), generator=rng)[:TRAINED_ON]
        index.train(vector_PD[sample_P].float().contiguous().numpy())
    for part_PD in vector_PD.split(TRAINED_ON):  # never all of them in float32
        index.add(part_PD.float().contiguous().numpy())
    return index
