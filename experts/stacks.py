"""Experts side by side: the tensors of a batch's distinct experts, stacked per site.

A stack serves every row of a batch, so its size follows the experts in the batch and never the
library's. `StackCache` keeps recent stacks, since traffic repeats its experts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from experts.errors import MixError
from experts.kinds import KINDS
from experts.versions import parse_reference
from experts.weights import ExpertWeights

STACK_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Stack:
    """E experts of one merge group.

    Attributes:
        index: expert id -> position in the stack.
        sites: site -> the kind's stacked tensors. vectors: artefact -> site -> (E, D), zeros for an
            expert that has none. owners: artefact -> ids of the experts that have it.
        siblings: site -> the sites that see the same tokens in one pass, itself among them.
    """

    kind: str
    index: Mapping[str, int]
    sites: Mapping[str, Mapping[str, Tensor]]
    vectors: Mapping[str, Mapping[str, Tensor]]
    owners: Mapping[str, frozenset[str]]
    siblings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _beside: dict[tuple[str, tuple[str, ...]], Tensor] = field(default_factory=dict, init=False)

    @property
    def size(self) -> int:
        """E, the number of experts."""
        return len(self.index)

    @property
    def ids(self) -> list[str]:
        """The experts by position; `index` itself may be in another order (see `Bank`)."""
        return sorted(self.index, key=self.index.__getitem__)

    @cached_property
    def _any(self) -> Tensor:
        return next(t for site in self.sites.values() for t in site.values())

    @property
    def dtype(self) -> torch.dtype:
        """Compute dtype."""
        return self._any.dtype

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self._any.device

    def vectors_beside(self, artefact: str, sites: tuple[str, ...], like: Tensor) -> Tensor:
        """Vectors (sites * E, D) at sites of one width, site after site; zeros where none are."""
        by_site = self.vectors.get(artefact, {})
        if len(sites) == 1 and sites[0] in by_site:
            return by_site[sites[0]]
        if not any(site in by_site for site in sites):
            return like.new_zeros(len(sites) * self.size, like.shape[1])
        if (artefact, sites) not in self._beside:
            zeros = like.new_zeros(self.size, like.shape[1])
            self._beside[artefact, sites] = torch.cat([by_site.get(s, zeros) for s in sites])
        return self._beside[artefact, sites]

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the sites' tensors; the vectors are a few hundredths of them."""
        tensors = [t for site in self.sites.values() for t in site.values()]
        return sum(t.numel() * t.element_size() for t in tensors)


class StackedVectors(Mapping[str, Mapping[str, Tensor]]):
    """Artefact -> site -> (E, D), stacked when a token router first asks for the artefact."""

    def __init__(self, experts: Sequence[ExpertWeights], sites: Iterable[str]) -> None:
        # Not the experts: a stack outlives their place in the cache, and would keep their tensors.
        self._vectors, self._sites = tuple(e.vectors for e in experts), tuple(sites)
        self._names = set[str]().union(*self._vectors)
        self._stacked: dict[str, Mapping[str, Tensor]] = {}

    def __getitem__(self, artefact: str) -> Mapping[str, Tensor]:
        if artefact not in self._names:
            raise KeyError(artefact)
        if artefact not in self._stacked:
            self._stacked[artefact] = _stack_vectors(
                [vectors.get(artefact, {}) for vectors in self._vectors], self._sites
            )
        return self._stacked[artefact]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def stack_experts(experts: Sequence[ExpertWeights]) -> Stack:
    """Stack experts of one merge group.

    Raises:
        MixError: the experts are of different groups, or there are none.
    """
    if len({e.group for e in experts}) != 1:
        raise MixError("A stack holds experts of one merge group.")
    kind = KINDS[experts[0].kind]
    names = dict.fromkeys(site for e in experts for site in e.sites)
    sites = {name: kind.stack([e.sites.get(name) for e in experts]) for name in names}
    index = {e.id: i for i, e in enumerate(experts)}
    vectors = StackedVectors(experts, names)
    owners = {name: frozenset(e.id for e in experts if name in e.vectors) for name in vectors}
    return Stack(kind.name, index, sites, vectors, owners)


def _stack_vectors(
    per_expert: Sequence[Mapping[str, Tensor]], sites: Sequence[str]
) -> dict[str, Tensor]:
    """One artefact's vectors per site; an expert without one there gets zeros: no preference."""
    stacked: dict[str, Tensor] = {}
    for site in sites:
        found = [by_site.get(site) for by_site in per_expert]
        like = next((v for v in found if v is not None), None)
        if like is not None:
            stacked[site] = torch.stack([torch.zeros_like(like) if v is None else v for v in found])
    return stacked


class StackCache:
    """Recent stacks by the (id, version) of their experts, within a bytes budget."""

    def __init__(self, budget: int = STACK_BYTES) -> None:
        self.budget = budget
        self._stacks: OrderedDict[tuple[tuple[str, int], ...], Stack] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, experts: Sequence[ExpertWeights]) -> list[Stack]:
        """One stack per merge group among `experts`, reused where possible."""
        groups: dict[object, list[ExpertWeights]] = {}
        for expert in sorted(experts, key=lambda e: e.id):
            groups.setdefault(expert.group, []).append(expert)
        return [self._one(members) for members in groups.values()]

    def drop(self, id: str) -> None:
        """Forget every stack that holds a version of an expert, so that its memory is freed."""
        with self._lock:
            for key in [
                k for k in self._stacks if any(id in (i, parse_reference(i)[0]) for i, _ in k)
            ]:
                del self._stacks[key]

    def _one(self, experts: list[ExpertWeights]) -> Stack:
        key = tuple((e.id, e.version) for e in experts)
        with self._lock:
            if key in self._stacks:
                self._stacks.move_to_end(key)
                return self._stacks[key]
        stack = stack_experts(experts)
        with self._lock:
            self._stacks[key] = stack
            while sum(s.nbytes for s in self._stacks.values()) > self.budget:
                self._stacks.popitem(last=False)
        return stack
