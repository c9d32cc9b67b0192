"""Copies of a library: pushed from its folder to a store, and pulled from there into others.

A pull fetches and checks every object before it changes anything, then changes its folder expert by
expert; killed at any moment it leaves sound experts, and the next one goes on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from experts.aliases import ALIASES
from experts.atomic import (
    atomic_folder,
    clean_leftovers,
    locked,
    remove_folder,
    replace_file,
    share,
)
from experts.constants import CALIBRATION, NAME
from experts.entries import CONFIG, MANIFEST, ROUTING, WEIGHTS, Entry
from experts.errors import MirroredLibrary, MirrorError
from experts.files import MAX_TENSOR_BYTES, read_bytes, sha256_of
from experts.library import Library
from experts.scanning import Progress
from experts.snapshot import Changes
from experts.store import INDEX, Files, Index, Store, parse_index
from experts.versions import FOLDER, link_or_copy

HELD = ".mirror"
"""Below the root of a copy: the objects its files are links to, by sha256. Marks it as a copy."""
log = logging.getLogger("sailplane.library")


@dataclass(frozen=True)
class Pushed:
    """What a push did: the generation that lies there now, and objects written and deleted."""

    generation: str
    written: int
    deleted: int


def push(root: Path, url: str) -> Pushed:
    """Have a store hold the library at `root` as it is now, kept versions and all.

    Raises:
        MirrorError: the store fails; or experts are bad, or the library or the store changed
            meanwhile. What was in force there stays.
    """
    store, library = Store(url), Library.open(root)
    if library.bad:
        bad = ", ".join(sorted(library.bad))
        raise MirrorError(f"{bad}: cannot be served; mend or remove them before a push.")
    before = store.index()
    index, paths = _index_of(library)
    there = store.sizes()
    written = 0
    for sha, path in paths.items():
        data = read_bytes(path, MAX_TENSOR_BYTES)
        if hashlib.sha256(data).hexdigest() != sha:
            _changed()
        if there.get(sha) != len(data):
            store.put(sha, data)
            written += 1
    if Library.open(root).generation != index.generation:
        _changed()
    if store.index() != before:
        raise MirrorError(f"{url}: another push was faster; look at what it wrote, or push again.")
    store.put_index(index.model_dump_json(indent=1).encode() + b"\n")
    needed = index.objects
    with suppress(
        MirrorError
    ):  # who is fetching by the index before may still need what that names
        needed |= parse_index(before, url).objects if before else set()
    stale = sorted(there.keys() - needed)
    store.delete(stale)
    return Pushed(index.generation, written, len(stale))


class Mirror:
    """A folder that is kept a copy of the library at an address."""

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root = url, root
        self.generation = ""
        self._store = Store(url)
        self._held = root / HELD
        self._last: bytes | None = None

    @property
    def begun(self) -> bool:
        """Whether the folder has been a copy before."""
        return self._held.is_dir()

    def pull(self) -> bool:
        """Copy what is there now; False where that is what was copied last.

        Raises:
            MirrorError: there is no library, or one that is damaged; or the folder holds one of its
                own. It is as before. SystemExhausted: the disk is full.
        """
        data = self._store.index()
        if data is None:
            raise MirrorError(
                f"{self.url}: there is no {INDEX}; `sailplane experts push` makes it."
            )
        if data == self._last:
            return False
        index = parse_index(data, self.url)
        self._require_ours()
        share(self._held)
        with locked(self._held):
            clean_leftovers(self._held)
            for sha in sorted(index.objects):
                if not (self._held / sha).exists():
                    replace_file(self._held / sha, self._store.get(sha))
            self._follow(index)
            for path in self._held.iterdir():
                if not path.name.startswith(".") and path.name not in index.objects:
                    path.unlink()
        self._last, self.generation = data, index.generation
        return True

    def _require_ours(self) -> None:
        """Whatever is not in the index goes: that must be nobody's work."""
        if not self.begun and self.root.is_dir():
            own = sorted(p.name for p in self.root.iterdir() if not p.name.startswith("."))
            if own:
                raise MirrorError(f"{self.root} holds {own[0]!r} and more of its own; a copy of "
                                  f"{self.url} needs an empty folder.")  # fmt: skip
        self._held.mkdir(parents=True, exist_ok=True)

    def _follow(self, index: Index) -> None:
        """Change the folder, one thing at a time; what others stand on first."""
        for ref, files in index.versions.items():
            self._fill(self.root / FOLDER / ref, files)
        for id, files in index.experts.items():
            self._fill(self.root / id, files)
        with locked(self.root):
            for name in sorted(index.files, key=[CALIBRATION, ALIASES].__contains__):
                held = self._held / index.files[name]
                if not _same(self.root / name, held):
                    replace_file(self.root / name, held.read_bytes())
            named = (ALIASES, CALIBRATION, *(p.name for p in self.root.glob(NAME.format("*"))))
            for name in named:
                if name not in index.files:
                    (self.root / name).unlink(missing_ok=True)
        self._drop(self.root, index.experts)
        self._drop(self.root / FOLDER, index.versions)

    def _fill(self, folder: Path, files: Files) -> None:
        there = {p.name for p in folder.iterdir()} if folder.is_dir() else set[str]()
        if there == files.keys() and all(
            _same(folder / name, self._held / sha) for name, sha in files.items()
        ):
            return
        with atomic_folder(folder) as fresh:
            for name, sha in files.items():
                link_or_copy(self._held / sha, fresh / name)

    @staticmethod
    def _drop(folder: Path, wanted: Mapping[str, Files]) -> None:
        for path in sorted(folder.glob(f"*/{MANIFEST}")):
            if not path.parent.name.startswith(".") and path.parent.name not in wanted:
                remove_folder(path.parent)


def _index_of(library: Library) -> tuple[Index, dict[str, Path]]:
    """A library's index, and where each of its objects lies."""
    snapshot, paths = library.snapshot, dict[str, Path]()

    def listed(path: Path, sha: str | None = None) -> str:
        sha = sha or sha256_of(path)
        paths[sha] = path
        return sha

    def files(entry: Entry) -> Files:
        found: Files = {MANIFEST: listed(entry.path / MANIFEST)}
        for name in (CONFIG, WEIGHTS, ROUTING):
            if name in entry.manifest.files:
                found[name] = listed(entry.path / name, entry.manifest.files[name])
        return found

    tensors = (library.calibration or {}).get("tensors")
    names = [ALIASES, CALIBRATION, *([str(tensors)] if tensors else ())]
    return Index(
        generation=snapshot.generation,
        experts={id: files(entry) for id, entry in snapshot.entries.items()},
        versions={ref: files(entry) for ref, entry in sorted(snapshot.kept.items())},
        files={n: listed(library.root / n) for n in names if (library.root / n).exists()},
    ), paths


def _same(path: Path, held: Path) -> bool:
    """Whether a file is that object: as a rule it is a link to it."""
    try:
        there, wanted = path.stat(), held.stat()
    except FileNotFoundError:
        return False
    if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
        return True
    return there.st_size == wanted.st_size and sha256_of(path) == held.name


def _changed() -> NoReturn:
    raise MirrorError("The library was changed while it was pushed: push again.")


class Mirrored(Library):
    """A library that follows an address, and is changed by nobody else.

    Args:
        mirror: of its folder. The others as `Library`.
    """

    def __init__(self, mirror: Mirror, fingerprint: str | None, backbone_id: str) -> None:
        super().__init__(mirror.root, fingerprint, backbone_id)
        self._mirror = mirror

    def refresh(self, *, again: bool = False, progress: Progress | None = None) -> Changes:
        """Copy what is new at the address, then look at the folder; see `Library.refresh`.

        Raises:
            MirrorError: the address fails; what was read before stays. When the library is opened,
                an earlier copy is served in its place.
        """
        try:
            self._mirror.pull()
        except MirrorError as error:
            if self._looked or not self._mirror.begun:
                raise
            log.error("%s Serving the copy of before.", error.message)
        return super().refresh(again=again, progress=progress)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise MirroredLibrary(
            f"This library is a copy of {self._mirror.url}: change the one it is pushed from, "
            "then `sailplane experts push`."
        )

    add: Callable[..., Entry] = _refuse
    refit: Callable[..., Entry] = _refuse
    roll_back: Callable[..., Entry] = _refuse
    remove: Callable[..., None] = _refuse
    set_alias: Callable[..., None] = _refuse
    write_calibration: Callable[..., None] = _refuse
