"""Reads the folders of a library, and again only those in which something changed.

A folder is told by what the file system says of it and of its files: inode, size, times. So a look
at thousands of experts that nobody touched reads no file. Knows nothing of what a change means.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experts.aliases import read_aliases
from experts.atomic import clean_leftovers, locked, share
from experts.entries import CONFIG, MANIFEST, ROUTING, WEIGHTS, Entry, read_entry
from experts.errors import CorruptExpert, ExpertError, LibraryUnreachable, SystemExhausted
from experts.exhaustion import raise_if_exhausted
from experts.joining import require_backbone
from experts.manifest import BackboneRef
from experts.snapshot import Snapshot
from experts.versions import FOLDER, read_kept, tidy

Progress = Callable[[int, int], None]
"""Told how many folders are done, and of how many."""

NAMES = (MANIFEST, CONFIG, WEIGHTS, ROUTING)
SETTLED_NS = 10**9
"""Clocks of file systems tick slowly: what was written this shortly before a look may be written
again without a sign."""


@dataclass(frozen=True)
class Found:
    """What lies in a library's folder: experts by id, why others are bad, the rest."""

    entries: Mapping[str, Entry]
    bad: Mapping[str, str]
    kept: Mapping[str, Entry]
    aliases: Mapping[str, str]


class Scanner:
    """Looks at a library's folder again and again.

    Args:
        root: the folder. backbone: the one that experts must have been trained on; None takes all.
    """

    def __init__(self, root: Path, backbone: BackboneRef | None) -> None:
        self.root, self._backbone = root, backbone
        self._current = _Shelf(root, self.read)
        self._kept = _Shelf(root / FOLDER, read_kept)

    def look(
        self, before: Snapshot, *, again: bool = False, progress: Progress | None = None
    ) -> Found:
        """What lies there now, after clearing up behind killed writers.

        Waits for a writer that lives, and has others wait meanwhile.

        Args:
            before: what was known; entries that did not change stay the same objects.
            again: read bad folders again although nothing in them changed.

        Raises:
            CorruptExpert: the aliases are damaged. LibraryUnreachable: the folder has gone,
                although it held experts, or may not be read.
        """
        if not self.root.is_dir():
            if before.entries or before.bad:
                raise LibraryUnreachable(
                    "The library's folder is not there; what was read of it stays."
                )
            return Found({}, {}, {}, {})
        share(self.root)
        with locked(self.root):
            clean_leftovers(self.root)
            aliases = read_aliases(self.root)
            entries, bad = self._current.look(before.entries, again, progress)
            _set_apart(entries, bad, aliases)
            kept: dict[str, Entry] = {}
            if self._kept.root.is_dir():
                with locked(self._kept.root):
                    clean_leftovers(self._kept.root)
                current = {id: entry.manifest.version for id, entry in entries.items()}
                tidy(self.root, current, spare=aliases.values())
                kept, _ = self._kept.look(before.kept, again, None)
        there = entries.keys() | bad.keys()
        kept = {ref: e for ref, e in kept.items() if e.id in there}
        return Found(entries, bad, kept, aliases)

    def read(self, folder: Path) -> Entry:
        """One expert's folder, as it is now.

        Raises:
            BadExpert: it cannot be served; the message says why.
        """
        if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(self.root)):
            raise CorruptExpert("The folder is a symlink that leaves the library.")
        entry = read_entry(folder)
        if entry.id != folder.name:
            raise CorruptExpert(f"The folder's name is not the manifest's id, {entry.id!r}.")
        require_backbone(entry.manifest, self._backbone)
        return entry

    def note(self, id: str, reason: str) -> None:
        """Have a folder be bad, for what no look can see, until something in it changes."""
        stamp, settled, _ = _stamp(f"{self.root}/{id}")
        self._current.seen[id] = _Seen(stamp, settled, reason)


@dataclass(frozen=True)
class _Seen:
    """A folder at the last look: its entry, or what is wrong with it."""

    stamp: int
    settled: bool
    found: Entry | str


class _Shelf:
    """The expert folders in one folder, and what was seen of each."""

    def __init__(self, root: Path, read: Callable[[Path], Entry]) -> None:
        self.root, self._read = root, read
        self.seen: dict[str, _Seen] = {}

    def look(
        self, before: Mapping[str, Entry], again: bool, progress: Progress | None
    ) -> tuple[dict[str, Entry], dict[str, str]]:
        """Entries and bad folders by name, in order of name."""
        with os.scandir(self.root) as listed:
            folders = sorted((f.name, f.is_symlink()) for f in listed if _is_candidate(f))
        seen: dict[str, _Seen] = {}
        for done, (name, linked) in enumerate(folders):
            if progress:
                progress(done, len(folders))
            if found := self._one(name, linked, again, before.get(name)):
                seen[name] = found
        self.seen = seen
        entries = {n: s.found for n, s in seen.items() if isinstance(s.found, Entry)}
        return entries, {n: s.found for n, s in seen.items() if isinstance(s.found, str)}

    def _one(self, name: str, linked: bool, again: bool, before: Entry | None) -> _Seen | None:
        """A folder as it is now, None where it is no expert's; read only where it changed."""
        # Before anything is read: what is written meanwhile shows at the next look.
        stamp, settled, expert = _stamp(f"{self.root}/{name}")
        if not expert:
            return None
        last = self.seen.get(name)
        same = last and last.settled and last.stamp == stamp
        if last and same and not (again and isinstance(last.found, str)):
            return last
        try:
            entry = self._read(self.root / name)
        except SystemExhausted:  # says nothing of the expert: what was known of all stays
            raise
        except ExpertError as error:
            return _Seen(stamp, settled, error.message)
        except OSError as error:  # it is being deleted under our eyes
            raise_if_exhausted(error)
            return _Seen(stamp, False, f"It cannot be read ({error.strerror}).")
        if before and before.manifest == entry.manifest:
            entry = before
        return _Seen(stamp, settled and not linked, entry)


def _set_apart(entries: dict[str, Entry], bad: dict[str, str], aliases: Mapping[str, str]) -> None:
    """An expert whose folder has an alias' name cannot be told from what the alias stands for."""
    for name in aliases.keys() & entries.keys():
        del entries[name]
        bad[name] = f"{name!r} is an alias of {aliases[name]!r}; rename the folder, or the alias."


def _is_candidate(item: os.DirEntry[str]) -> bool:
    if item.name.startswith("."):
        return False
    try:
        return item.is_dir()
    except OSError:  # a loop of symlinks, or a disk that fails: to be listed as bad
        return True


def _stamp(folder: str) -> tuple[int, bool, bool]:
    """A folder as the file system tells it.

    Returns:
        One number to compare, whether it can be relied on, and whether the folder looks like an
        expert's: one of notes is none of ours.
    """
    marks: list[object] = []
    newest = 0
    for path in (folder, *[f"{folder}/{name}" for name in NAMES]):
        try:
            s = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            marks.append(None)
            continue
        except OSError as error:  # it may be an expert's, and to be listed as bad
            marks.append(error.errno)
            continue
        changed = s.st_ctime_ns
        marks.append((s.st_ino, s.st_size, s.st_mtime_ns, changed))
        newest = max(newest, changed)
    settled = newest < time.time_ns() - SETTLED_NS
    return hash(tuple(marks)), settled, any(marks[1:4])
