"""The library: a folder of experts, what is wrong with some of them, and safe changes to it.

Readers see one immutable `Snapshot`; a change builds the next one and swaps it in. Knows nothing
of routing, and loads an expert only to check one that is being added.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from experts.aliases import (
    changed_aliases,
    read_aliases,
    require_no_alias,
    require_removable,
    require_unreserved,
    write_aliases,
)  # fmt: skip
from experts.artefacts import Artefacts
from experts.atomic import atomic_folder, locked, take_away
from experts.constants import write_constants
from experts.entries import MANIFEST, Entry, problems, read_manifest, require_id
from experts.errors import BadExpert, UnknownExpert
from experts.files import resolve_inside
from experts.joining import Describe, settle
from experts.kinds import Site
from experts.manifest import BackboneRef, Label, TaskCard
from experts.reader import LibraryReader
from experts.scanning import Progress, Scanner
from experts.scope import EVERYTHING, Scope
from experts.snapshot import Changes, Snapshot
from experts.versions import copy_files, find_kept, forget, highest, keep, parse_reference
from experts.writing import refill


class Library(LibraryReader):
    """A folder of experts for one backbone.

    Reading is free of locks; changes wait for each other, across processes too.
    """

    def __init__(self, root: Path, fingerprint: str | None, backbone_id: str) -> None:
        super().__init__(root)
        self.fingerprint = fingerprint
        self._backbone = (
            BackboneRef(id=backbone_id, fingerprint=fingerprint) if fingerprint else None
        )
        self.backbone_id = backbone_id
        self._scanner = Scanner(root, self._backbone)
        self._writing = threading.Lock()
        self._swapping = threading.Lock()  # held for a moment; `_writing` as long as files take
        # Versions that lie there no longer: their names are used up while caches may hold them.
        self._used: dict[str, int] = {}

    @classmethod
    def open(
        cls, root: Path, *, fingerprint: str | None = None, backbone_id: str = "backbone",
        progress: Progress | None = None,
    ) -> Library:  # fmt: skip
        """Read the library at `root`, which may be empty or not there yet.

        Args:
            root: its folder. fingerprint: of the backbone to serve; None skips that check, and
                then nothing can be added. backbone_id: the name new manifests give the backbone.
            progress: told how far it is.

        Raises:
            CorruptExpert: `calibration.json` or `aliases.json` is damaged. A damaged expert goes to
                `bad` instead.
        """
        library = cls(Path(root), fingerprint, backbone_id)
        library.refresh(progress=progress)
        return library

    def refresh(self, *, again: bool = False, progress: Progress | None = None) -> Changes:
        """Look at the folder, whoever changed it; what did not change is not read again.

        Args:
            again: read bad folders again too, although nothing in them changed.
            progress: told how far it is.

        Raises:
            CorruptExpert: `calibration.json` or `aliases.json` is damaged. LibraryUnreachable: the
                folder has gone. What was read before stays.
        """
        with self._writing:
            before = self._snapshot
            constants = self._constants()
            found = self._scanner.look(before, again=again, progress=progress)
            self._swap(
                lambda now: Snapshot(
                    found.entries, found.bad, constants, kept=found.kept, aliases=found.aliases
                )
            )
            self._looked = True
            gone = self._snapshot.gone_since(before) if self._snapshot is not before else ()
            for id, version in map(parse_reference, gone):
                self._used[id] = max(self._used.get(id, 0), version or 0)
            return self._snapshot.since(before)

    def add(
        self,
        source: Path,
        id: str | None = None,
        *,
        sites: Mapping[str, Site],
        roots: Sequence[Path],
        title: str | None = None,
        instructions: Sequence[str] = (),
        labels: Sequence[Label] = (),
        tags: Sequence[str] = (),
        describe: Describe | None = None,
        replace: bool = False,
        scope: Scope = EVERYTHING,
    ) -> Entry:
        """Copy an adapter into the library, if it loads on the served backbone.

        Args:
            source: a folder that PEFT or Sailplane wrote. roots: folders it may come from.
            id: by default its manifest's id, or the folder's name. sites: the backbone's.
            title: this and the others replace what the manifest says, where given; see `settle`.
            describe: makes the routing artefacts; without it those the folder brings stay.
            replace: take the place of an expert, in one step; the former version is kept.
            scope: of the caller: what it adds carries its tags.

        Raises:
            ForbiddenSource: `source` lies outside all `roots`. BadTags: see `Scope.tags_for`.
            DuplicateExpert: the id is taken, and not to be replaced.
            BadExpert: it cannot be served, and the library is as before.
        """
        source = scope.outside(self.root, resolve_inside(source, roots))
        with self._writing:
            known = read_manifest(source) if (source / MANIFEST).exists() else None
            id = require_id(id or (known.id if known else source.name))
            with atomic_folder(self.root / id) as folder:
                self._require_free(id, scope, replace=replace)
                former = self._former(id)
                said = {"title": title, "instructions": tuple(instructions), "id": id,
                        "tags": scope.tags_for(tags, known, former and former.manifest),
                        "labels": tuple(labels)}  # fmt: skip
                manifest = settle(
                    folder, source, known, said, version=1 + self._highest(id), sites=sites,
                    heir_of=None if known else former, backbone=self._backbone, describe=describe,
                )  # fmt: skip
                kept = keep(self.root, former) if former else None
            self._put(entry := Entry(self.root / id, manifest), kept)
        return entry

    def refit(self, entry: Entry, artefacts: Artefacts, card: TaskCard | None = None) -> Entry:
        """Give an expert other artefacts, and what a card says, as its next version.

        The former one is kept.

        Raises:
            UnknownExpert: that version was replaced or removed meanwhile.
        """
        with self._writing:
            with atomic_folder(self.root / entry.id) as folder:
                former = self._former(entry.id)
                if former is None or not former.same_tensors(entry):
                    raise UnknownExpert(f"Expert {entry.id!r} was replaced or removed meanwhile.")
                grown = former.manifest.of_task(card) if card else former.manifest
                grown = grown.model_copy(update={"version": 1 + self._highest(entry.id)})
                manifest = refill(folder, former, grown, artefacts)
                kept = keep(self.root, former)
            self._put(fitted := Entry(self.root / entry.id, manifest), kept)
        return fitted

    def roll_back(self, id: str, version: int, scope: Scope = EVERYTHING) -> Entry:
        """Put a kept version of an expert in the place of the current one, which is kept.

        Raises:
            UnknownExpert: there is no such version.
        """
        with self._writing:
            target = self._snapshot.within(scope).find(f"{id}@{version}")
            if target is self.entries.get(id):
                return target
            with atomic_folder(self.root / id) as folder:
                copy_files(target, folder)
                former = self._former(id)
                kept = keep(self.root, former) if former else None
            self._put(entry := Entry(self.root / id, target.manifest), kept)
        return entry

    def remove(self, id: str, scope: Scope = EVERYTHING) -> None:
        """Delete an expert's folder, served or bad, and what is kept of its former versions.

        Raises:
            UnknownExpert: there is none, or another process was faster.
            AliasedExpert: aliases stand for it.
        """
        require_removable(self.root, self._snapshot, id, scope)
        with self._writing, locked(self.root):
            require_removable(self.root, self._snapshot, id, scope)  # now nobody else changes it
            self._used[id] = self._highest(id)
            there = take_away(self.root / id)
            forget(self.root, id)  # last: who is killed in between has removed it all the same
            self._swap(lambda now: now.without(id))
        if not there:
            raise UnknownExpert(f"Another process has removed expert {id!r} already.")

    def set_alias(self, name: str, ref: str | None, scope: Scope = EVERYTHING) -> None:
        """Have a name stand for an expert (`id`) or a version (`id@version`); None: for nothing.

        Raises:
            UnknownExpert, UnknownAlias: there is none. BadExpert: the name has not the form of an
                id. DuplicateExpert: something else has the name.
        """
        if not self.root.is_dir():
            raise UnknownExpert("The library has no experts yet.")
        with self._writing, locked(self.root):
            aliases = read_aliases(self.root)
            seen = self._snapshot.renamed(aliases).within(scope)
            changed = changed_aliases(seen, aliases, name, ref)
            if ref is not None:
                self._require_no_expert(name, scope)
            write_aliases(self.root, changed)
            self._swap(lambda now: now.renamed(changed))

    def set_aside(self, entry: Entry, reason: str) -> None:
        """List an expert as bad whose files turned out so when they were read.

        Its folder stays as it is, and `refresh` reads it again once something in it changed. One
        that was replaced meanwhile, by this process or another, gives way to what lies there now.
        Where its folder is gone, or the whole library is out of reach, the next look tells.
        """
        if not self.reachable or not (self.root / entry.id).is_dir():
            return
        self._used[entry.id] = max(self._used.get(entry.id, 0), entry.manifest.version)
        with self._writing, locked(self.root):  # whose files lie there already comes first
            if self.entries.get(entry.id) is not entry:
                return
            there = self._on_disk(entry.id)
            if there is None or there.manifest == entry.manifest:
                self._scanner.note(entry.id, reason)
                self._swap(lambda now: now.set_aside(entry, reason))
            else:
                kept = find_kept(self.root, entry.ref)
                self._swap(lambda now: now.put(there, kept))

    def write_calibration(
        self, constants: Mapping[str, object], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Store the routing constants, atomically; without `tensors` the old ones stay.

        Raises:
            StaleConstants: without `tensors`, and another process has stored others meanwhile.
        """
        with self._writing:
            stored = write_constants(self.root, constants, tensors, self.calibration)
            self._swap(lambda now: now.calibrated(stored))

    def _require_free(self, id: str, scope: Scope, *, replace: bool) -> None:
        """That a caller may give an expert this id; under the lock others wait for."""
        aliases = read_aliases(self.root)
        require_no_alias(id, aliases, self._snapshot.renamed(aliases).within(scope))
        self._require_no_expert(id, scope, replace=replace)

    def _require_no_expert(self, id: str, scope: Scope, *, replace: bool = False) -> None:
        require_unreserved(id, self.backbone_id)
        there = self._on_disk(id) or self.entries.get(id)
        if there or (self.root / id).exists():
            scope.require_replaceable(id, there and there.manifest, replace=replace)

    def _on_disk(self, id: str) -> Entry | None:
        """The expert as it lies there now, whoever wrote it; None when it cannot be served."""
        try:
            return self._scanner.read(self.root / id) if (self.root / id).is_dir() else None
        except (BadExpert, OSError):
            return None

    def _highest(self, id: str) -> int:
        """The highest version that any tensors of this id had, as far as this process knows."""
        listed = (e.manifest.version for e in self._snapshot.versions(id))
        return max(self._used.get(id, 0), highest(self.root, id), *listed)

    def _put(self, entry: Entry, kept: Entry | None) -> None:
        """Show an entry, and let go of the oldest kept versions that no alias pins."""
        self._swap(lambda now: now.put(entry, kept))
        with locked(self.root):  # so that none is pinned meanwhile
            spared = read_aliases(self.root).values()
            gone = forget(self.root, entry.id, entry.manifest.version, spare=spared)
        self._swap(lambda now: now.forget(gone))

    def _former(self, id: str) -> Entry | None:
        """The version that a change replaces, if there is one to keep: a sound one."""
        found = self._on_disk(id)
        return found if found and not problems(found) else None

    def _swap(self, change: Callable[[Snapshot], Snapshot]) -> None:
        with self._swapping:
            self._snapshot = change(self._snapshot).after(self._snapshot)
