"""The library at one moment, and what each change makes of it. Pure: no files, no locks."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import TypeVar

from experts.entries import Entry
from experts.errors import UnknownExpert
from experts.scope import EVERYTHING, Scope
from experts.versions import parse_reference

T = TypeVar("T")
SCOPES = 64
"""Views of one snapshot that are remembered: callers with the same tags share one."""


@dataclass(frozen=True)
class Changes:
    """What a look at the folder found, by id, and the generation that it led to.

    Attributes:
        added: new, or sound again. replaced: another version, or told of otherwise.
        removed: there no more, sound or not. bad: all that cannot be served now.
    """

    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    bad: tuple[str, ...]
    generation: str


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The library at one moment.

    Attributes:
        entries: expert id -> entry, in order of id. bad: folder name -> why it is not served.
        calibration: the routing constants, None before the first calibration.
        kept: `id@version` -> entry of a former version. aliases: name -> `id` or `id@version`.
        scope: of the caller whose view it is.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    bad: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, object] | None = None
    kept: Mapping[str, Entry] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    scope: Scope = EVERYTHING

    def within(self, scope: Scope) -> Snapshot:
        """What a caller sees of it: as if nothing else were there.

        A version is seen by who sees the expert as it is now and that version. What is bad is not
        seen by a limited caller: tags in damaged files tell nothing.
        """
        if scope.tags is None:
            return self
        return self._within(frozenset(scope.tags & self.tagged.keys()))

    @cached_property
    def tagged(self) -> Mapping[str, frozenset[str]]:
        """The ids of the experts that carry a tag, by tag."""
        ids: dict[str, list[str]] = {}
        for id, entry in self.entries.items():
            for tag in self.scope.shown(entry.manifest.tags):
                ids.setdefault(tag, []).append(id)
        return {tag: frozenset(carry) for tag, carry in ids.items()}

    @cached_property
    def _within(self) -> Callable[[frozenset[str]], Snapshot]:
        return lru_cache(SCOPES)(self._part)

    def _part(self, tags: frozenset[str]) -> Snapshot:
        scope = Scope(tags)
        ids = sorted(frozenset[str]().union(*(self.tagged[tag] for tag in tags)))
        entries = {id: self.entries[id] for id in ids}
        kept = {r: e for r, e in self.kept.items() if e.id in entries and scope.sees(e.manifest)}
        part = replace(self, entries=entries, bad={}, kept=kept, aliases={}, scope=scope)
        aliases = {name: ref for name, ref in self.aliases.items() if part.stands(ref)}
        return replace(part, aliases=aliases)

    def stands(self, ref: str) -> bool:
        """Whether there is what an alias stands for."""
        id, version = parse_reference(ref)
        return id in self.entries if version is None else self.at(id, version) is not None

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, str]]:
        """The aliases of each expert that has any, by its id: name -> reference."""
        by_id: dict[str, dict[str, str]] = {}
        for name, ref in self.aliases.items():
            by_id.setdefault(parse_reference(ref)[0], {})[name] = ref
        return by_id

    @cached_property
    def generation(self) -> str:
        """Names this state: equal for equal libraries, in any process, and for no others."""
        former = [e for e in self.kept.values() if self.at(e.id, e.manifest.version) is e]
        parts = (
            [entry.digest for entry in self.entries.values()],
            sorted(entry.digest for entry in former),
            sorted(self.bad),
            self.calibration,
            dict(self.aliases),
        )
        said = json.dumps(parts, sort_keys=True).encode()
        return hashlib.blake2b(said, digest_size=6).hexdigest()

    def get(self, id: str) -> Entry:
        """The entry of an expert.

        Raises:
            UnknownExpert: there is none; the message names the closest ids.
        """
        if id in self.entries:
            return self.entries[id]
        if id in self.bad:
            why = self.bad[id]
            raise UnknownExpert(f"Expert {id!r} cannot be served: {why}", reason=why)
        if ref := self.aliases.get(id):
            raise UnknownExpert(f"{id!r} is an alias; name the expert itself: {ref!r}.")
        close = self._closest(id)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise UnknownExpert(f"The library has no expert {id!r}.{hint}", closest=close)

    def _closest(self, id: str) -> list[str]:
        """Up to 3 names that are spelt almost like `id`, in whatever case."""
        names = {name.casefold(): name for name in (*self.aliases, *self.entries)}
        return [names[close] for close in difflib.get_close_matches(id.casefold(), names, n=3)]

    def find(self, name: str) -> Entry:
        """The entry of an expert, or of one of its versions: `id`, `id@version`, or an alias.

        Raises:
            UnknownExpert: there is none; the message names the closest ids, or the versions.
        """
        id, version = parse_reference(self.aliases.get(name, name))
        if version is None:
            return self.get(id)
        if found := self.at(id, version):
            return found
        there = [str(e.manifest.version) for e in self.versions(id)]
        if not there:
            return self.get(id)
        raise UnknownExpert(
            f"Version {version} of expert {id!r} is not kept; there are: {', '.join(there)}."
        )

    def at(self, id: str, version: int) -> Entry | None:
        """A version of an expert, current or kept."""
        current = self.entries.get(id)
        if current is not None and current.manifest.version == version:
            return current
        return self.kept.get(f"{id}@{version}")

    def versions(self, id: str) -> list[Entry]:
        """All versions of an expert that can answer, oldest first."""
        found = {e.ref: e for e in self._former.get(id, ())}
        if current := self.entries.get(id):
            found[current.ref] = current
        return sorted(found.values(), key=lambda e: e.manifest.version)

    @cached_property
    def _former(self) -> Mapping[str, list[Entry]]:
        """The kept versions by id: a list of thousands asks for each."""
        by_id: dict[str, list[Entry]] = {}
        for entry in self.kept.values():
            by_id.setdefault(entry.id, []).append(entry)
        return by_id

    def put(self, entry: Entry, kept: Entry | None = None) -> Snapshot:
        """With an expert, in the place of one of the same id, which may be kept."""
        former = {**self.kept, kept.ref: kept} if kept else self.kept
        bad = _less(self.bad, entry.id)
        return replace(self, entries={**self.entries, entry.id: entry}, bad=bad, kept=former)

    def without(self, id: str) -> Snapshot:
        """Without a folder, served or bad, and all that was kept of it."""
        kept = {ref: e for ref, e in self.kept.items() if e.id != id}
        return replace(self, entries=_less(self.entries, id), bad=_less(self.bad, id), kept=kept)

    def forget(self, references: Iterable[str]) -> Snapshot:
        """Without some of the kept versions."""
        gone = set(references)
        return replace(self, kept={ref: e for ref, e in self.kept.items() if ref not in gone})

    def calibrated(self, constants: Mapping[str, object]) -> Snapshot:
        """With other routing constants."""
        return replace(self, calibration=constants)

    def renamed(self, aliases: Mapping[str, str]) -> Snapshot:
        """With other aliases."""
        return replace(self, aliases=aliases)

    def set_aside(self, entry: Entry, reason: str) -> Snapshot:
        """With an expert listed as bad, unless it was replaced or removed meanwhile."""
        if self.entries.get(entry.id) is not entry:
            return self
        return replace(
            self, entries=_less(self.entries, entry.id), bad={**self.bad, entry.id: reason}
        )

    def since(self, before: Snapshot) -> Changes:
        """What differs from a former snapshot."""
        then, now = before.entries, self.entries
        known, here = then.keys() | before.bad.keys(), now.keys() | self.bad.keys()
        return Changes(
            added=tuple(id for id in now if id not in then),
            replaced=tuple(id for id, e in now.items() if id in then and then[id] is not e),
            removed=tuple(sorted(known - here)),
            bad=tuple(sorted(self.bad)),
            generation=self.generation,
        )

    def gone_since(self, before: Snapshot) -> list[str]:
        """References of a former snapshot that name no tensors here, or other ones."""
        gone: list[str] = []
        for entry in (*before.entries.values(), *before.kept.values()):
            now = self.at(entry.id, entry.manifest.version)
            if now is not entry and (now is None or now.manifest.files != entry.manifest.files):
                gone.append(entry.ref)
        return gone

    def after(self, before: Snapshot) -> Snapshot:
        """As the one that follows `before`: that itself, where nothing differs."""
        entries, bad, kept = dict(sorted(self.entries.items())), dict(self.bad), dict(self.kept)
        aliases = dict(sorted(self.aliases.items()))
        if (entries, bad, kept, self.calibration, aliases) == (
            dict(before.entries), dict(before.bad), dict(before.kept), before.calibration,
            dict(before.aliases),
        ):  # fmt: skip
            return before
        return Snapshot(
            MappingProxyType(entries), MappingProxyType(bad), self.calibration,
            MappingProxyType(kept), MappingProxyType(aliases),
        )  # fmt: skip


def _less(mapping: Mapping[str, T], key: str) -> dict[str, T]:
    return {name: value for name, value in mapping.items() if name != key}
