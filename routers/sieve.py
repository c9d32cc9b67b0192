"""A first sieve over thousands of experts: the ones whose vectors lie nearest, view by view.

Nearly surely, not exactly: who passes is scored exactly afterwards, and of the densities of inputs
only the directions are left to that. A faiss index by size: flat while that is fast, 4-bit product
quantisation above (Jegou et al. 2011; faiss `PQ..x4fs`). Knows no requests and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, zip_longest

import faiss
import torch
from torch import Tensor

from experts.artefacts import REQUEST_ARTEFACTS
from routers.catalogue import Routed
from routers.index import owned
from routers.metric import Gaussian, Metric
from routers.types import Features

FLAT = 2048
"""Vectors up to which everything is compared: 0.3 ms."""
TRAINED_ON, ROUNDS = 1024, 8
"""Vectors, and rounds of k-means, for 16 centres: faiss' usual 4096 and 25 take ten times as long
and find no more."""
ADDED = 10_000  # at once: never all of them in float32
LEAST = 8  # vectors looked at for each of many choices
REACH = 8.0
"""Whitened coordinates and log-densities further out count as this far (whole tasks are within 5):
the quantiser has one scale for all, and one odd expert must not coarsen it."""


class Near:
    """Very many vectors, each owned by an expert, and the nearest few of them.

    Args:
        owner_P: whose each is, by position. measure: faiss' name of what near means.
    """

    def __init__(
        self, owner_P: Tensor, vector_PD: Tensor, measure: int = faiss.METRIC_INNER_PRODUCT
    ) -> None:
        self._owner_P = owner_P
        self._index = _index(vector_PD, measure) if len(owner_P) else None

    def __len__(self) -> int:
        """P, the number of vectors."""
        return len(self._owner_P)

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

    def __init__(self, experts: Sequence[Routed], metric: Metric | None = None) -> None:
        self.experts = tuple(experts)
        self.metric = metric
        self.known = frozenset(map(id, self.experts))
        self.size = sum(len(v) for e in experts for v in e.artefacts.rows())
        self._instructions = Near(*owned([e.artefacts.instructions for e in experts]))
        self._choices = Near(*owned([e.artefacts.choices for e in experts]))
        self._inputs = Near(*owned([e.artefacts.centroids for e in experts]))
        self._densities = Near(*placed([e.gaussian for e in experts]), faiss.METRIC_L2)

    def nearest(
        self, query: Features, count: int, here_E: Tensor | None = None
    ) -> Iterator[Routed]:
        """Experts that own one of about `count` nearest vectors of a view, nearest first.

        The views take turns, so that none of them crowds out another. Where densities tell of the
        input, centroids do not: a router that compares centroids is given no `input_F`.

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
        white_F = query.white(self.metric) if self.metric else None
        if white_F is not None and len(self._densities):
            views.append(self._densities.owners(sought(white_F), count, here_E))
        elif query.input_D is not None:
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
        here_E = torch.tensor([passes(e) for e in sieve.experts], dtype=torch.bool)
        self.share = float(here_E.sum()) / max(1, len(here_E))
        self._here_E = here_E if self.share < 1 else None

    def nearest(self, query: Features, count: int) -> Iterator[Routed]:
        """As `Sieve.nearest`, of those that pass."""
        return self.sieve.nearest(query, count, self._here_E)


def placed(gaussians: Sequence[Gaussian | None]) -> tuple[Tensor, Tensor]:
    """Gaussians as points near to `sought(z)` where they are dense, as `owned` gives vectors.

    The squared distance is |z - mean|^2 - 2 offset, up to a number that all have in common: the
    log-density but for its directions. (An inner product as a distance: Bachrach et al. 2014.)

    Returns:
        (P,) whose each is, by position; (P, F + 2) points in half precision.
    """
    there = [(e, g) for e, g in enumerate(gaussians) if g is not None]
    if not there:
        return owned([])
    offset_P = torch.stack([g.figures[0] for _, g in there])
    behind_P = (2 * (offset_P.max() - offset_P)).sqrt()
    mean_PF = torch.stack([g.mean for _, g in there])
    return torch.tensor([e for e, _ in there]), _points(mean_PF, behind_P)


def sought(white_F: Tensor) -> Tensor:
    """A whitened input as a point (1, F + 2) among Gaussians that are `placed`."""
    return _points(white_F[None], torch.zeros(1))


def _points(white_PF: Tensor, behind_P: Tensor) -> Tensor:
    """One more coordinate, and a zero: quantisers take them by twos."""
    last_P2 = torch.stack([behind_P, torch.zeros_like(behind_P)], dim=1)
    return torch.cat([white_PF, last_P2.to(white_PF.dtype)], dim=1).clamp_(-REACH, REACH)


def is_quick(experts: Sequence[Routed]) -> bool:
    """Whether a sieve of these experts is made in milliseconds: all its indexes are flat."""
    most = 0
    for name in REQUEST_ARTEFACTS:
        rows = (getattr(e.artefacts, name) for e in experts)
        most = max(most, sum(len(t) for t in rows if t is not None))
    return max(most, sum(e.gaussian is not None for e in experts)) <= FLAT


def _index(vector_PD: Tensor, measure: int) -> faiss.Index:
    count, width = vector_PD.shape
    flat = count <= FLAT or width % 2
    spec = "Flat" if flat else f"PQ{width // 2}x4fs"
    index = faiss.index_factory(width, spec, measure)
    rng = torch.Generator().manual_seed(0)
    with _one_thread():
        if isinstance(index, faiss.IndexPQFastScan):
            index.pq.cp.niter = ROUNDS
            sample_P = torch.randperm(len(vector_PD), generator=rng)[:TRAINED_ON]
            index.train(vector_PD[sample_P].float().contiguous().numpy())
        for part_PD in vector_PD.split(ADDED):
            index.add(part_PD.float().contiguous().numpy())
    return index


@contextmanager
def _one_thread() -> Generator[None]:
    """Faiss by itself: k-means of hundreds of small parts has its threads wait for each other.

    Where other processes have the cores too, they wait a hundred times as long as they work.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
