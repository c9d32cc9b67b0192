"""The library: a folder of experts, what is wrong with some of them, and safe changes to it.

Readers see one immutable `Snapshot`; a change builds the next one and swaps it in. Knows nothing
of routing, and loads an expert only to check one that is being added.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from experts.artefacts import Artefacts
from experts.constants import CALIBRATION, write_constants
from experts.entries import (
    CONFIG,
    MANIFEST,
    Entry,
    problems,
    read_entry,
    read_manifest,
    require_id,
)
from experts.errors import CorruptExpert, DuplicateExpert, ExpertError, UnknownExpert
from experts.files import (
    atomic_folder,
    clean_leftovers,
    locked,
    read_json,
    remove_folder,
    resolve_inside,
)  # fmt: skip
from experts.joining import Describe, require_backbone, settle
from experts.kinds import Site
from experts.manifest import BackboneRef, Label
from experts.reader import LibraryReader
from experts.snapshot import Snapshot
from experts.versions import KEPT, copy_files, find_kept, forget, highest, keep, read_kept
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
        self._writing = threading.Lock()
        self._swapping = threading.Lock()  # held for a moment; `_writing` as long as files take
        # Versions that lie there no longer: their names are used up while caches may hold them.
        self._used: dict[str, int] = {}

    @classmethod
    def open(
        cls, root: Path, *, fingerprint: str | None = None, backbone_id: str = "backbone"
    ) -> Library:
        """Read the library at `root`, which may be empty or not there yet.

        Args:
            root: its folder. fingerprint: of the backbone to serve; None skips that check, and
                then nothing can be added. backbone_id: the name new manifests give the backbone.

        Raises:
            CorruptExpert: `calibration.json` is damaged. A damaged expert goes to `bad` instead.
        """
        library = cls(Path(root), fingerprint, backbone_id)
        library.refresh()
        return library

    def refresh(self) -> None:
        """Read the folder again; entries that did not change stay the same objects."""
        with self._writing:
            entries: dict[str, Entry] = {}
            bad: dict[str, str] = {}
            for folder in self._folders():
                try:
                    entries[folder.name] = self._checked(folder)
                except ExpertError as error:
                    bad[folder.name] = error.message
            path = self.root / CALIBRATION
            constants = read_json(path) if path.exists() else None
            there = entries.keys() | bad.keys()
            kept = {ref: e for ref, e in read_kept(self.root).items() if e.id in there}
            self._swap(lambda now: Snapshot(entries, bad, constants, kept=now.same(kept)))

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
    ) -> Entry:
        """Copy an adapter into the library, if it loads on the served backbone.

        Args:
            source: a folder that PEFT or Sailplane wrote. id: by default its manifest's id, or
                the folder's name. sites: the backbone's. roots: folders it may come from.
            title: this and the others replace what the manifest says, where given. An adapter
                without a manifest that replaces an expert keeps what was said of that one.
            describe: makes the routing artefacts; without it those the folder brings stay.
            replace: take the place of an expert of the same id, in one step; the former version is
                kept.

        Raises:
            ForbiddenSource: `source` lies outside all `roots`.
            DuplicateExpert: the id is taken, and not to be replaced.
            BadExpert: it cannot be served, and the library is as before; the message says why.
        """
        source = resolve_inside(source, roots)
        with self._writing:
            known = read_manifest(source) if (source / MANIFEST).exists() else None
            id = require_id(id or (known.id if known else source.name))
            said = {"title": title, "instructions": tuple(instructions),
                    "labels": tuple(labels), "tags": tuple(tags), "id": id}  # fmt: skip
            given = {name: value for name, value in said.items() if value}
            with atomic_folder(self.root / id) as folder:
                self._require_free(id, replace)  # under the lock that other processes wait for
                former = self._former(id)
                manifest = settle(
                    folder, source, known, given, version=1 + self._highest(id), sites=sites,
                    heir_of=None if known else former, backbone=self._backbone, describe=describe,
                )  # fmt: skip
                kept = keep(self.root, former) if former else None
            entry = Entry(self.root / id, manifest)
            self._swap(lambda now: now.put(entry, kept))
            gone = forget(self.root, id, but=KEPT)
            self._swap(lambda now: now.forget(gone))
        return entry

    def refit(self, entry: Entry, artefacts: Artefacts) -> Entry:
        """Give an expert other artefacts, as its next version; the former is kept.

        Raises:
            UnknownExpert: that version was replaced or removed meanwhile.
        """
        with self._writing:
            with atomic_folder(self.root / entry.id) as folder:
                former = self._former(entry.id)
                if former is None or not former.same_tensors(entry):
                    raise UnknownExpert(f"Expert {entry.id!r} was replaced or removed meanwhile.")
                grown = former.manifest.model_copy(update={"version": 1 + self._highest(entry.id)})
                manifest = refill(folder, former, grown, artefacts)
                kept = keep(self.root, former)
            fitted = Entry(self.root / entry.id, manifest)
            self._swap(lambda now: now.put(fitted, kept))
            gone = forget(self.root, entry.id, but=KEPT)
            self._swap(lambda now: now.forget(gone))
        return fitted

    def roll_back(self, id: str, version: int) -> Entry:
        """Put a kept version of an expert in the place of the current one, which is kept.

        Raises:
            UnknownExpert: there is no such version.
        """
        with self._writing:
            target = self.find(f"{id}@{version}")
            if target is self.entries.get(id):
                return target
            with atomic_folder(self.root / id) as folder:
                copy_files(target, folder)
                former = self._former(id)
                kept = keep(self.root, former) if former else None
            entry = Entry(self.root / id, target.manifest)
            self._swap(lambda now: now.put(entry, kept))
        return entry

    def remove(self, id: str) -> None:
        """Delete an expert's folder, served or bad, and what is kept of its former versions.

        Raises:
            UnknownExpert: there is none, or another process was faster.
        """
        with self._writing:
            if id not in self.bad:
                self.get(id)
            self._used[id] = self._highest(id)
            forget(self.root, id)
            there = remove_folder(self.root / id)
            self._swap(lambda now: now.without(id))
        if not there:
            raise UnknownExpert(f"Another process has removed expert {id!r} already.")

    def set_aside(self, entry: Entry, reason: str) -> None:
        """List an expert as bad whose files turned out so when they were read.

        Its folder stays as it is, and `refresh` looks at it again. One that was replaced meanwhile,
        by this process or another, gives way to the version that lies there now.
        """
        self._used[entry.id] = max(self._used.get(entry.id, 0), entry.manifest.version)
        with self._writing, locked(self.root):  # whose files lie there already comes first
            there = self._on_disk(entry.id)
            if there is None or there.manifest == entry.manifest:
                self._swap(lambda now: now.set_aside(entry, reason))
            elif self.entries.get(entry.id) is entry:
                kept = find_kept(self.root, entry.ref)
                self._swap(lambda now: now.put(there, kept))

    def write_calibration(
        self, constants: Mapping[str, object], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Store the routing constants, atomically; without `tensors` the old ones stay."""
        with self._writing:
            stored = write_constants(self.root, constants, tensors, self.calibration)
            self._swap(lambda now: now.calibrated(stored))

    def _folders(self) -> list[Path]:
        """Sub-folders that look like an expert, after clearing up behind killed writers."""
        if not self.root.is_dir():
            return []
        clean_leftovers(self.root)
        return sorted(
            path
            for path in self.root.iterdir()
            if not path.name.startswith(".")
            and ((path / MANIFEST).exists() or (path / CONFIG).exists())
        )

    def _checked(self, folder: Path) -> Entry:
        if not folder.resolve().is_relative_to(self.root.resolve()):
            raise CorruptExpert("The folder is a symlink that leaves the library.")
        entry = read_entry(folder)
        if entry.id != folder.name:
            raise CorruptExpert(f"The folder's name is not the manifest's id, {entry.id!r}.")
        require_backbone(entry.manifest, self._backbone)
        before = self.entries.get(entry.id)
        return before if before and before.manifest == entry.manifest else entry

    def _require_free(self, id: str, replace: bool) -> None:
        if id in ("auto", self.backbone_id):
            raise DuplicateExpert(f"{id!r} is a model name with another meaning; choose another.")
        if not replace and (id in self.entries or (self.root / id).exists()):
            raise DuplicateExpert(f"The library has an expert {id!r} already; remove it first.")

    def _on_disk(self, id: str) -> Entry | None:
        """The expert as it lies there now, whoever wrote it; None when it cannot be served."""
        try:
            return self._checked(self.root / id) if (self.root / id).is_dir() else None
        except ExpertError:
            return None

    def _highest(self, id: str) -> int:
        """The highest version that any tensors of this id had, as far as this process knows."""
        listed = (e.manifest.version for e in self._snapshot.versions(id))
        return max(self._used.get(id, 0), highest(self.root, id), *listed)

    def _former(self, id: str) -> Entry | None:
        """The version that a change replaces, if there is one to keep: a sound one."""
        found = self._on_disk(id)
        return found if found and not problems(found) else None

    def _swap(self, change: Callable[[Snapshot], Snapshot]) -> None:
        with self._swapping:
            self._snapshot = change(self._snapshot).after(self._snapshot)
