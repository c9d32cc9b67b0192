"""What a caller may use of a library: everything, or the experts that carry one of its tags.

Made in one place per caller and handed down from there. Knows neither HTTP nor keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experts.errors import BadTags, DuplicateExpert, ForbiddenSource
from experts.manifest import TAG_FORM, Manifest, Provenance, is_tag

NAMES_OTHERS = frozenset({"sources", "start", "memory", "tasks"})
"""What of a provenance names experts, or tasks that go by their names: what one was merged of,
begins at, was reminded of, or trained on."""


@dataclass(frozen=True)
class Scope:
    """What one caller may use.

    Attributes:
        tags: it sees the experts that carry at least one of these, and of their tags these alone;
            None: all experts, untagged ones too.
    """

    tags: frozenset[str] | None = None

    @property
    def limited(self) -> bool:
        """Whether there is anything it may not see."""
        return self.tags is not None

    def within(self, other: Scope) -> bool:
        """Whether all that this caller may use is the other's to use."""
        if other.tags is None:
            return True
        return self.tags is not None and self.tags <= other.tags

    def sees(self, manifest: Manifest) -> bool:
        """Whether an expert exists for this caller."""
        return self.tags is None or not self.tags.isdisjoint(manifest.tags)

    def shown(self, tags: Iterable[str]) -> list[str]:
        """Those of an expert's tags that exist for this caller."""
        return [tag for tag in tags if self.tags is None or tag in self.tags]

    def provenance(self, manifest: Manifest) -> Provenance:
        """Where an expert comes from; to a limited caller without what names other experts."""
        return without_others(manifest.provenance) if self.limited else manifest.provenance

    def tags_for(
        self, given: Sequence[str], known: Manifest | None, former: Manifest | None
    ) -> tuple[str, ...]:
        """The tags of an expert that this caller adds; empty where what is known of it stays.

        A limited caller gives tags of its own. Those of the expert it replaces that it does not
        see stay: others go on seeing that expert.

        Args:
            given: what it said. known: the manifest the folder brings. former: the manifest of the
                expert that is replaced.

        Raises:
            BadTags: they are not of a tag's form, or a limited caller may not give them.
        """
        require_tags(given)
        if self.tags is None:
            return tuple(given)
        told = tuple(given) or (known.tags if known else ())
        if not told and not known and former:
            return former.tags
        own = ", ".join(sorted(self.tags))
        if not told:
            raise BadTags(f"What you add must carry at least one of your tags: {own}.")
        if not self.tags.issuperset(told):
            raise BadTags(f"What you add may carry your own tags only: {own}.")
        unseen = [tag for tag in (former.tags if former else ()) if tag not in self.tags]
        return (*told, *unseen)

    def outside(self, library: Path, source: Path) -> Path:
        """`source`, a folder to add; raises ForbiddenSource where it may not be theirs to see."""
        if self.limited and source.is_relative_to(library.resolve()):
            raise ForbiddenSource("A folder of the library itself cannot be added to it.")
        return source

    def require_replaceable(self, id: str, there: Manifest | None, *, replace: bool) -> None:
        """Refuse a name that a folder of the library has, unless its expert is to be replaced.

        Args:
            there: the expert's manifest, None where the folder cannot be served.

        Raises:
            DuplicateExpert: of what the caller does not see it says only that the name is taken.
        """
        if self.limited and not (there and self.sees(there)):
            raise taken(id)
        if not replace:
            raise DuplicateExpert(
                f"The library has an expert {id!r} already; choose another name, or remove it "
                "first."
            )


def without_others(provenance: Provenance) -> Provenance:
    """A provenance without what names other experts."""
    return {name: value for name, value in provenance.items() if name not in NAMES_OTHERS}


EVERYTHING = Scope()
"""The scope of a caller without limits."""


def require_tags(tags: Iterable[str]) -> None:
    """Raises BadTags where one of them has not the form of a tag."""
    for tag in tags:
        if not is_tag(tag):
            raise BadTags(f"{tag!r} is no tag: {TAG_FORM}.")


def taken(id: str) -> DuplicateExpert:
    """The refusal of a name whose owner the caller does not see: it says no more than that."""
    return DuplicateExpert(f"The name {id!r} is taken; choose another.")
