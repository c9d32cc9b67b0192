"""The library at one moment, and what each change makes of it. Pure: no files and no locks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from experts.entries import Entry

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The library at one moment.

    Attributes:
        entries: expert id -> entry, in order of id. bad: folder name -> why it is not served.
        calibration: the routing constants, None before the first calibration.
        generation: grows with every change.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, object] | None = None
    generation: int = 0

    def put(self, entry: Entry) -> Snapshot:
        """With an expert, in the place of one of the same id."""
        return replace(self, entries={**self.entries, entry.id: entry})

    def without(self, id: str) -> Snapshot:
        """Without a folder, served or bad."""
        return replace(self, entries=_less(self.entries, id), bad=_less(self.bad, id))

    def set_aside(self, entry: Entry, reason: str) -> Snapshot:
        """With an expert listed as bad, unless it was replaced or removed meanwhile."""
        if self.entries.get(entry.id) is not entry:
            return self
        return replace(
            self, entries=_less(self.entries, entry.id), bad={**self.bad, entry.id: reason}
        )

    def after(self, before: Snapshot) -> Snapshot:
        """As the one that follows `before`: that itself, where nothing differs."""
        entries, bad = dict(sorted(self.entries.items())), dict(self.bad)
        if (entries, bad, self.calibration) == (
            dict(before.entries), dict(before.bad), before.calibration,
        ):  # fmt: skip
            return before
        return Snapshot(
            MappingProxyType(entries), MappingProxyType(bad), self.calibration,
            before.generation + 1,
        )  # fmt: skip


def _less(mapping: Mapping[str, T], key: str) -> dict[str, T]:
    return {name: value for name, value in mapping.items() if name != key}
