"""From a large library to the few experts worth scoring exactly, as a small catalogue.

What request routers and the policy cost then no longer grows with the library. Leaves a small
library as it is; scores nothing and decides nothing.
"""

from __future__ import annotations

from itertools import islice

from routers.catalogue import Catalogue, Routed
from routers.policy import Wishes, may_answer
from routers.sieve import Sieve
from routers.types import Features

SMALL = 256
"""A library up to this size is scored as a whole."""
KEPT = 96
"""How many experts are scored of a larger one: half as many again as any preset can use."""
NEAREST = 384  # vectors looked at first; an expert owns several
FRESH = 512
"""So many experts may join before the large sieve is made anew."""


class Shortlist:
    """Shortens one catalogue.

    Args:
        catalogue: all routable experts. before: the shortlist of the catalogue before a change,
            whose sieve is kept while few experts are new.
    """

    def __init__(self, catalogue: Catalogue, before: Shortlist | None = None) -> None:
        self.catalogue = catalogue
        made = before._sieves[0] if before and before._sieves else None
        self._sieves = _sieves(catalogue, made) if len(catalogue) > SMALL else ()

    def of(self, query: Features, wishes: Wishes) -> Catalogue:
        """The experts that come near a query and may answer it; all, when they are few."""
        if not self._sieves:
            return self.catalogue
        if wishes.allow is not None and len(wishes.allow) <= SMALL:
            named = [e for id in wishes.allow if (e := self.catalogue.get(id))]
            return self.catalogue.only(named, len(named))
        near = [e for sieve in self._sieves for e in self._near(sieve, query, wishes)]
        return self.catalogue.only(near, self._able(wishes))

    def _near(self, sieve: Sieve, query: Features, wishes: Wishes) -> list[Routed]:
        """The nearest of one sieve, looking further while too few of them may answer."""
        count = NEAREST
        while True:
            near = sieve.nearest(query, count)
            able = (e for e in near if self.catalogue.holds(e) and may_answer(e.id, wishes))
            found = list(islice(able, KEPT))
            if len(found) == KEPT or count >= sieve.size:
                return found
            count *= 4

    def _able(self, wishes: Wishes) -> int:
        """How many experts of the whole library may answer."""
        if wishes.allow is not None:
            return sum(self.catalogue.get(id) is not None for id in wishes.allow - wishes.deny)
        return len(self.catalogue) - sum(self.catalogue.get(id) is not None for id in wishes.deny)


def _sieves(catalogue: Catalogue, before: Sieve | None) -> tuple[Sieve, ...]:
    """A sieve over nearly all experts, and a small one over those that joined since it was made."""
    if before is not None:
        fresh = [e for e in catalogue.experts if id(e) not in before.known]
        if len(fresh) <= FRESH and len(before.experts) <= 2 * len(catalogue):
            return (before, Sieve(fresh)) if fresh else (before,)
    return (Sieve(catalogue.experts),)
