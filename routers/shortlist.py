"""From a large library to the few experts worth scoring exactly, as a small catalogue.

What request routers and the policy cost then no longer grows with the library. Leaves a small
library as it is; scores nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from itertools import islice
from math import ceil

from routers.catalogue import Catalogue, Routed
from routers.policy import Wishes, may_answer
from routers.sieve import Part, Sieve, is_quick
from routers.types import Features

SMALL = 256
"""A library up to this size is scored as a whole."""
KEPT, KEPT_OF_MANY = 64, 96
"""How many experts are scored of a larger one: eight times what the default preset can use; where
more than half of that may be used, half as many again as any preset can use."""
NEAREST = 384  # vectors looked at first; an expert owns several
FRESH = 512
"""So many experts may join before the large sieve is made anew."""
PARTS = 16
"""Large sets of allowed and denied experts that are remembered: those of a tag come again."""


class Shortlist:
    """Shortens one catalogue.

    Args:
        catalogue: all routable experts. before: the shortlist of the catalogue before a change,
            whose sieve is kept while few experts are new. sieves: of a larger catalogue, to be
            shared; only what is in this one passes them.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        before: Shortlist | None = None,
        sieves: tuple[Sieve, ...] | None = None,
    ) -> None:
        self.catalogue = catalogue
        made = before._sieves[0] if before and before._sieves else None
        self._sieves: tuple[Sieve, ...] = ()
        if len(catalogue) > SMALL:
            self._sieves = _sieves(catalogue, made) if sieves is None else sieves
        self._parts = tuple(Part(sieve, catalogue.holds) for sieve in self._sieves)
        self._narrowed = lru_cache(PARTS)(self._narrow)

    def within(self, ids: Collection[str]) -> Shortlist:
        """Of these experts alone, as if there were no others.

        A sieve of their own is made at once where they own few vectors; to train one for many
        takes seconds, so these pass the sieves of all.
        """
        part = self.catalogue.among(ids)
        return Shortlist(part, sieves=None if is_quick(part.experts) else self._sieves)

    def of(self, query: Features, wishes: Wishes, limit: int = 1) -> Catalogue:
        """The experts that come near a query and may answer it; all, when they are few.

        Args:
            limit: how many may be used (`limit_of`).
        """
        if not self._sieves:
            return self.catalogue
        allow, deny = wishes.allow, wishes.deny
        if allow is not None and len(allow) <= SMALL:
            named = [e for id in allow if (e := self.catalogue.get(id))]
            return self.catalogue.only(named, len(named))
        if allow is not None or len(deny) > SMALL:
            return self._narrowed(allow, deny).of(query, Wishes(), limit)
        kept = KEPT if 2 * limit <= KEPT else KEPT_OF_MANY
        near = [e for part in self._parts for e in _near(part, query, wishes, kept)]
        gone = sum(self.catalogue.get(id) is not None for id in deny)
        return self.catalogue.only(near, len(self.catalogue) - gone)

    def _narrow(self, allow: frozenset[str] | None, deny: frozenset[str]) -> Shortlist:
        ids = self.catalogue.ids if allow is None else allow
        return self.within([id for id in ids if id not in deny])


def _near(part: Part, query: Features, wishes: Wishes, kept: int) -> list[Routed]:
    """The nearest `kept` of one sieve, looking further while too few of them may answer."""
    count = ceil(NEAREST / part.share) if part.share else part.sieve.size
    while True:
        able = (e for e in part.nearest(query, count) if may_answer(e.id, wishes))
        found = list(islice(able, kept))
        if len(found) == kept or count >= part.sieve.size:
            return found
        count *= 4


def _sieves(catalogue: Catalogue, before: Sieve | None) -> tuple[Sieve, ...]:
    """A sieve over nearly all experts, and a small one over those that joined since it was made."""
    if before is not None and before.metric is catalogue.metric:
        fresh = [e for e in catalogue.experts if id(e) not in before.known]
        if len(fresh) <= FRESH and len(before.experts) <= 2 * len(catalogue):
            return (before, Sieve(fresh, catalogue.metric)) if fresh else (before,)
    return (Sieve(catalogue.experts, catalogue.metric),)
