"""Step 6: the experts of a batch, pinned; a routed one that cannot be loaded gives way to the next.

Who named an expert gets that expert or an error; who left the choice to a router gets the next
candidate, and the trace says so. Never does the bare backbone stand in for what failed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack

from experts.cache import Lease
from experts.errors import ExpertError, MixError, UnknownExpert
from experts.library import Entry, Library
from experts.tiers import Tier, Tiers
from experts.versions import parse_reference
from experts.weights import ExpertWeights
from routers.token import TOKEN_ROUTERS
from server.engine.named import naming
from server.engine.work import Work, alive

TRIES = 3
"""Loads before a sample fails: a dead disk must not be asked for every expert there is."""

Decide = Callable[[Work, Collection[str]], None]
"""Decides anew for a sample, without the experts named."""


class Pinned:
    """What a batch holds in memory, all of it by reference (`id@version`).

    Attributes:
        experts: what could be loaded. failed: why the others could not. found: where each was
            when it was first asked for.
    """

    def __init__(self, tiers: Tiers, stack: ExitStack) -> None:
        self.experts: dict[str, ExpertWeights] = {}
        self.failed: dict[str, ExpertError] = {}
        self.found: dict[str, Tier] = {}
        self._tiers, self._stack = tiers, stack
        self._begun: list[Lease[ExpertWeights]] = []

    def begin(self, board: Sequence[Work]) -> None:
        """Begin to load what samples selected, while the rest of the batch is being decided."""
        refs = dict.fromkeys(r for w in alive(board) if w.decision for r in w.selection.refs)
        new = [ref for ref in refs if ref not in self.found]
        if not new:
            return
        self.found |= {ref: self._tiers.where(ref) for ref in new}
        lease = self._tiers.hold(new)
        self._stack.callback(lease.release)
        self._begun.append(lease)

    def load(self, board: Sequence[Work], decide: Decide, library: Library) -> None:
        """Wait for what the samples selected; where that fails, have it decided anew.

        An expert that has left the library since the batch began counts as one that fails, also
        where memory still has it. A sample that still has an expert that failed is for
        `require_loaded` to refuse.
        """
        for left in reversed(range(TRIES)):
            self._wait(board)
            here = self.entries(library)
            self.failed |= {ref: _removed(ref) for ref in self.experts if ref not in here}
            failed = self.failed.keys()
            stuck = [w for w in alive(board) if w.preset and failed & {*w.selection.refs}]
            for work in stuck if left else ():
                self._replace(work, decide)
            if not stuck:
                return

    def entries(self, library: Library) -> dict[str, Entry]:
        """The pinned experts that are still in the library, or kept beside it."""
        now = library.snapshot
        found = {ref: now.at(*_parsed(ref)) for ref in self.experts}
        return {ref: entry for ref, entry in found.items() if entry is not None}

    def _wait(self, board: Sequence[Work]) -> None:
        """Have everything in memory that the samples selected."""
        self.begin(board)
        for lease in self._begun:
            lease.wait()
            self.experts |= lease.experts
            self.failed |= lease.failed
        self._begun.clear()

    def _replace(self, work: Work, decide: Decide) -> None:
        """Another selection for a sample, or the failure itself where there is no other expert."""
        gone = [e for e in work.selection.experts if e.ref in self.failed]
        decide(work, {_parsed(ref)[0] for ref in self.failed})
        if work.selection.mode == "base":
            work.error = naming(gone[0].ref, self.failed[gone[0].ref])
            return
        work.replaced += tuple(e.id for e in gone)
        work.dropped |= {e.id: f"could not be loaded: {self.failed[e.ref].message}" for e in gone}


def require_loaded(work: Work, pinned: Pinned, entries: Mapping[str, Entry]) -> None:
    """An expert that could not be loaded fails its sample; it is never left out in silence.

    Raises:
        BadExpert: why it could not. UnknownExpert: it has just been removed.
        MixError: the experts are of different merge groups, or lack what token routing reads.
    """
    for expert in work.selection.experts:
        if expert.ref in pinned.failed:
            raise naming(expert.ref, pinned.failed[expert.ref])
        if expert.ref not in entries:
            raise _removed(expert.ref)
    router = TOKEN_ROUTERS.get(work.selection.token_router or "")
    for expert in work.selection.experts:
        if not router or not router.artefact or expert.fixed:
            continue
        if router.artefact not in pinned.experts[expert.ref].vectors:
            raise MixError(
                f"Expert {expert.id!r} has no {router.artefact} vectors for token routing."
            )
    groups = {pinned.experts[ref].group for ref in work.selection.refs}
    if len(groups) > 1:
        raise MixError(
            "Experts of different merge groups cannot act on one sample.",
            experts=list(work.selection.ids),
        )


def _removed(ref: str) -> UnknownExpert:
    return UnknownExpert(f"Expert {_parsed(ref)[0]!r} was removed while the request waited.")


def _parsed(ref: str) -> tuple[str, int]:
    id, version = parse_reference(ref)
    assert version is not None
    return id, version
