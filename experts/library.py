"""The library: a folder of experts, what is wrong with some of them, and safe changes to it.

Readers see one immutable `Snapshot`; a change builds the next one and swaps it in. Knows nothing
of routing, and loads an expert only to check one that is being added.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from experts.artefacts import Artefacts
from experts.constants import CALIBRATION, read_constant_tensors, write_constants
from experts.entries import (
    CONFIG,
    MANIFEST,
    Entry,
    copy_adapter,
    problems,
    read_entry,
    read_manifest,
    require_id,
)
from experts.errors import (
    BackboneError,
    CorruptExpert,
    DuplicateExpert,
    ExpertError,
    MismatchedExpert,
    UnknownExpert,
)
from experts.files import atomic_folder, clean_leftovers, read_json, remove_folder, resolve_inside
from experts.kinds import Adapter, Site, group_text, kind_of
from experts.loader import load_expert
from experts.manifest import BackboneRef, Label, Manifest
from experts.snapshot import Snapshot
from experts.weights import ExpertWeights
from experts.writing import put_artefacts, seal

Describe = Callable[[ExpertWeights, Manifest, Artefacts], Artefacts]
"""From an expert's weights, its manifest and the artefacts it brings to those it will have."""


class Library:
    """A folder of experts for one backbone.

    Reading is free of locks; changes wait for each other, across processes too.
    """

    def __init__(self, root: Path, fingerprint: str | None, backbone_id: str) -> None:
        self.root = root
        self.fingerprint = fingerprint
        self.backbone_id = backbone_id
        self._snapshot = Snapshot()
        self._writing = threading.Lock()
        self._swapping = threading.Lock()  # held for a moment; `_writing` as long as files take
        self._tensors: tuple[object, Mapping[str, Tensor]] = (None, {})
        # id -> last version: (id, version) must name one set of tensors while caches may hold it
        self._removed: dict[str, int] = {}

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

    @property
    def snapshot(self) -> Snapshot:
        """Entries, bad folders, calibration and generation, consistent with each other."""
        return self._snapshot

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The experts that can be served, by id."""
        return self._snapshot.entries

    @property
    def bad(self) -> Mapping[str, str]:
        """Folders that cannot be served, and why."""
        return self._snapshot.bad

    @property
    def calibration(self) -> Mapping[str, object] | None:
        """The library's routing constants, if they were ever fitted."""
        return self._snapshot.calibration

    @property
    def generation(self) -> int:
        """Grows with every change."""
        return self._snapshot.generation

    def get(self, id: str) -> Entry:
        """The entry of an expert.

        Raises:
            UnknownExpert: there is none; the message names the closest ids.
        """
        entries, bad = self._snapshot.entries, self._snapshot.bad
        if id in entries:
            return entries[id]
        if id in bad:
            raise UnknownExpert(f"Expert {id!r} cannot be served: {bad[id]}", reason=bad[id])
        close = difflib.get_close_matches(id, entries, n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise UnknownExpert(f"The library has no expert {id!r}.{hint}", closest=close)

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
            self._swap(lambda _: Snapshot(entries, bad, constants))

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
    ) -> Entry:
        """Copy an adapter into the library, if it loads on the served backbone.

        Args:
            source: a folder that PEFT or Sailplane wrote. id: by default its manifest's id, or
                the folder's name. sites: the backbone's. roots: folders it may come from.
            title: this and the others replace what the manifest says, where given.
            describe: makes the routing artefacts; without it those the folder brings stay.

        Raises:
            ForbiddenSource: `source` lies outside all `roots`.
            DuplicateExpert: the id is taken.
            BadExpert: it cannot be served; the message says why.
        """
        source = resolve_inside(source, roots)
        said = {"title": title, "instructions": tuple(instructions), "labels": tuple(labels),
                "tags": tuple(tags)}  # fmt: skip
        with self._writing:
            known = read_manifest(source) if (source / MANIFEST).exists() else None
            id = require_id(id or (known.id if known else source.name))
            with atomic_folder(self.root / id) as folder:
                self._require_free(id)  # under the lock that other processes wait for
                manifest = copy_adapter(source, folder, known) or self._new_manifest(id, folder)
                given = {name: value for name, value in said.items() if value}
                version = max(manifest.version, self._removed.get(id, 0) + 1)
                manifest = manifest.model_copy(update={**given, "id": id, "version": version})
                manifest = seal(folder, manifest)
                self._require_backbone(manifest)
                loaded = load_expert(Entry(folder, manifest), sites, dtype=torch.float32)
                seen = {"without_effect": loaded.inert, "group": group_text(loaded)}
                if describe:
                    brought = Entry(folder, manifest).read_artefacts()
                    put_artefacts(folder, describe(loaded, manifest, brought))
                manifest = seal(folder, manifest.model_copy(update=seen))
            entry = Entry(self.root / id, manifest)
            self._swap(lambda now: now.put(entry))
        return entry

    def remove(self, id: str) -> None:
        """Delete an expert's folder, served or bad.

        Raises:
            UnknownExpert: there is none, or another process was faster.
        """
        with self._writing:
            if id not in self.bad:
                self.get(id)
            there = remove_folder(self.root / id)
            if id in self.entries:
                self._removed[id] = self.entries[id].manifest.version
            self._swap(lambda now: now.without(id))
        if not there:
            raise UnknownExpert(f"Another process has removed expert {id!r} already.")

    def set_aside(self, entry: Entry, reason: str) -> None:
        """List an expert as bad whose files turned out so when they were read.

        Its folder stays as it is, and `refresh` looks at it again. One that was replaced or removed
        meanwhile is not touched.
        """
        self._swap(lambda now: now.set_aside(entry, reason))

    def verify(self) -> dict[str, list[str]]:
        """Check every file again: id -> what is wrong, empty where nothing is."""
        found = {id: problems(entry) for id, entry in self.entries.items()}
        return found | {name: [reason] for name, reason in self.bad.items()}

    def write_calibration(
        self, constants: Mapping[str, object], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Store the routing constants, atomically; without `tensors` the old ones stay."""
        with self._writing:
            stored = write_constants(self.root, constants, tensors, self.calibration)
            self._swap(lambda now: replace(now, calibration=stored))

    def calibration_tensors(self) -> Mapping[str, Tensor]:
        """The tensors of the constants, in float32. Raises CorruptExpert as their file does.

        Read once: another process that calibrates the library deletes the file they came from.
        """
        constants = self.calibration
        name = (constants or {}).get("tensors")
        if self._tensors[0] != name:
            self._tensors = (name, read_constant_tensors(self.root, constants))
        return self._tensors[1]

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
        self._require_backbone(entry.manifest)
        before = self.entries.get(entry.id)
        return before if before and before.manifest == entry.manifest else entry

    def _require_backbone(self, manifest: Manifest) -> None:
        theirs = manifest.backbone.fingerprint
        if self.fingerprint not in (None, theirs):
            raise MismatchedExpert(
                f"It was trained on backbone {manifest.backbone.id!r} ({theirs[:12]}...), and the "
                f"one that is served is {self.backbone_id!r} ({str(self.fingerprint)[:12]}...)."
            )

    def _require_free(self, id: str) -> None:
        if id in ("auto", self.backbone_id):
            raise DuplicateExpert(f"{id!r} is a model name with another meaning; choose another.")
        if id in self.entries or (self.root / id).exists():
            raise DuplicateExpert(f"The library has an expert {id!r} already; remove it first.")

    def _new_manifest(self, id: str, folder: Path) -> Manifest:
        """A manifest for an adapter that PEFT wrote, which carries none."""
        if self.fingerprint is None:
            raise BackboneError("Without a backbone, only experts with a manifest can be added.")
        kind = kind_of(Adapter(read_json(folder / CONFIG), {}))
        backbone = BackboneRef(id=self.backbone_id, fingerprint=self.fingerprint)
        return Manifest(id=id, title=id, kind=kind.name, backbone=backbone)

    def _swap(self, change: Callable[[Snapshot], Snapshot]) -> None:
        with self._swapping:
            self._snapshot = change(self._snapshot).after(self._snapshot)
