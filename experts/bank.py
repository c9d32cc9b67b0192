"""The experts of a running batch, laid side by side as they come and go.

A stack of fixed experts is built once for a batch; where rows join and leave at any time, it would
be built anew at every change. A bank keeps room for more: who joins is copied to its end, and when
somebody leaves the last one moves to the gap. Knows no rows and no tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType

from torch import Tensor

from experts.errors import MixError
from experts.stacks import Stack
from experts.weights import ExpertWeights

Key = tuple[str, str, str]
"""(part of a site, site, "") or ("", site, artefact): which tensor of an expert."""
Siblings = Mapping[str, tuple[str, ...]]
FIRST_ROOM = 4


class Bank:
    """Experts of one merge group.

    Args:
        siblings: see `Stack.siblings`; sites that no expert has may be among them.
    """

    def __init__(self, kind: str, siblings: Siblings = MappingProxyType({})) -> None:
        self.kind = kind
        self._siblings = siblings
        self._index: dict[str, int] = {}
        self._tensors: dict[Key, Tensor] = {}
        self._artefacts: dict[str, frozenset[str]] = {}
        self._room = 0
        self._stack: Stack | None = None

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """Bytes it takes, room for more experts included."""
        return sum(t.numel() * t.element_size() for t in list(self._tensors.values()))

    def join(self, expert: ExpertWeights) -> None:
        """Lay an expert beside the others."""
        place = len(self._index)
        if place == self._room:
            self._room = max(FIRST_ROOM, 2 * self._room)
            self._tensors = {k: _grown(t, (self._room, *t.shape[1:]))
                             for k, t in self._tensors.items()}  # fmt: skip
        mine = {**_tensors_of(expert)}
        for key, tensor in mine.items():
            self._make_room(key, tensor)
        for key, stacked in self._tensors.items():
            _put(stacked[place], mine.get(key))
        self._index[expert.id] = place
        self._artefacts[expert.id] = frozenset(expert.vectors)
        self._stack = None

    def leave(self, id: str) -> None:
        """Let an expert go; the last one moves to its place."""
        place = self._index.pop(id)
        del self._artefacts[id]
        last = len(self._index)
        if place != last:
            for tensor in self._tensors.values():
                tensor[place] = tensor[last]
            moved = next(i for i, at in self._index.items() if at == last)
            self._index[moved] = place
        if not self._index:
            self._tensors, self._room = {}, 0
        self._stack = None

    @property
    def stack(self) -> Stack:
        """The experts that are here now, as a pass takes them; it holds until the next change."""
        if self._stack is None:
            self._stack = self._view()
        return self._stack

    def _view(self) -> Stack:
        sites: dict[str, dict[str, Tensor]] = {}
        vectors: dict[str, dict[str, Tensor]] = {}
        for (part, site, artefact), tensor in self._tensors.items():
            used = tensor[: len(self._index)]
            if artefact:
                vectors.setdefault(artefact, {})[site] = used
            else:
                sites.setdefault(site, {})[part] = used
        owners = {
            name: frozenset(id for id, has in self._artefacts.items() if name in has)
            for name in vectors
        }
        siblings = {s: tuple(o for o in self._siblings.get(s, (s,)) if o in sites) for s in sites}
        return Stack(self.kind, dict(self._index), sites, vectors, owners, siblings)

    def _make_room(self, key: Key, tensor: Tensor) -> None:
        """Have a place for this tensor of every expert, large enough for the largest."""
        known = self._tensors.get(key)
        if known is None:
            fresh = tensor.new_empty(self._room, *tensor.shape)
            fresh[: len(self._index)] = 0  # of those who lack it; what comes later is written whole
            self._tensors[key] = fresh
            return
        if known.ndim != tensor.ndim + 1:
            raise MixError("A bank holds experts of one merge group.")
        wanted = [max(a, b) for a, b in zip(known.shape[1:], tensor.shape, strict=True)]
        if wanted != list(known.shape[1:]):
            self._tensors[key] = _grown(known, (self._room, *wanted))


class Banks:
    """A bank for each merge group; an expert is there while at least one row uses it.

    Args:
        siblings: see `Bank`.
    """

    def __init__(self, siblings: Siblings = MappingProxyType({})) -> None:
        self._siblings = siblings
        self._banks: dict[Hashable, Bank] = {}
        self._there: dict[str, ExpertWeights] = {}
        self._users: dict[str, int] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all banks."""
        return sum(bank.nbytes for bank in list(self._banks.values()))

    @property
    def ids(self) -> Sequence[str]:
        """The experts that are there, by the ids they were given with."""
        return list(self._users)

    def may_join(self, experts: Iterable[ExpertWeights]) -> bool:
        """Whether none of these has the name of one that is there with other tensors."""
        return all(self._there.get(expert.id, expert) is expert for expert in experts)

    def join(self, experts: Iterable[ExpertWeights]) -> None:
        """Have these experts there for one more row; see `may_join`."""
        for expert in experts:
            if expert.id not in self._users:
                bank = self._banks.setdefault(expert.group, Bank(expert.kind, self._siblings))
                bank.join(expert)
                self._there[expert.id] = expert
            self._users[expert.id] = self._users.get(expert.id, 0) + 1

    def leave(self, ids: Iterable[str]) -> None:
        """One row less uses these experts."""
        for id in ids:
            self._users[id] -= 1
            if not self._users[id]:
                del self._users[id]
                group = self._there.pop(id).group
                self._banks[group].leave(id)
                if not len(self._banks[group]):
                    del self._banks[group]

    def stacks(self) -> list[Stack]:
        """One stack a merge group."""
        return [bank.stack for bank in self._banks.values()]


def _tensors_of(expert: ExpertWeights) -> Mapping[Key, Tensor]:
    sites = {(part, site, ""): t for site, parts in expert.sites.items()
             for part, t in parts.items()}  # fmt: skip
    vectors = {("", site, name): t for name, by_site in expert.vectors.items()
               for site, t in by_site.items()}  # fmt: skip
    return {**sites, **vectors}


def _put(target: Tensor, tensor: Tensor | None) -> None:
    """Copy into a place that may be larger; what is beyond is zero."""
    if tensor is None:
        target.zero_()
        return
    if target.shape != tensor.shape:
        target.zero_()
    target[tuple(slice(n) for n in tensor.shape)] = tensor


def _grown(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A copy with more room; zeros only where somebody reads before they are written over."""
    wider = tensor.shape[1:] != shape[1:]
    larger = tensor.new_zeros(shape) if wider else tensor.new_empty(shape)
    larger[tuple(slice(n) for n in tensor.shape)] = tensor
    return larger
