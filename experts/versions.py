"""Former versions of a library's experts, kept beside it so that they can answer or come back.

`.versions/<id>@<version>` holds hard links to the files a version had: keeping one costs no space
until its files are replaced, and no moment passes in which neither version is there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from experts.entries import LIMITS, MANIFEST, Entry, read_entry
from experts.errors import ExpertError
from experts.files import atomic_folder, clean_leftovers, remove_folder

FOLDER = ".versions"
KEPT = 3
"""Former versions kept of one expert; older ones go."""
NAME = re.compile(r"(?P<id>.+)@(?P<version>[0-9]+)")


def parse_reference(name: str) -> tuple[str, int | None]:
    """An id and a version, None where the name says none: the current one."""
    found = NAME.fullmatch(name)
    return (found["id"], int(found["version"])) if found else (name, None)


def read_kept(root: Path) -> dict[str, Entry]:
    """What is kept below a library: reference -> entry. What is damaged is left out."""
    kept: dict[str, Entry] = {}
    folder = root / FOLDER
    if not folder.is_dir():
        return kept
    clean_leftovers(folder)
    for path in sorted(folder.iterdir()):
        try:
            entry = read_entry(path)
        except ExpertError:
            continue
        if entry.ref == path.name:
            kept[path.name] = entry
    return kept


def keep(root: Path, entry: Entry) -> Entry:
    """Keep an entry's files as they are now; the entry to find them by."""
    target = root / FOLDER / entry.ref
    if not target.exists():
        with atomic_folder(target) as folder:
            copy_files(entry, folder)
    return Entry(target, entry.manifest)


def forget(root: Path, references: Iterable[str]) -> None:
    """Delete kept versions; those that are gone already are no fault."""
    for ref in references:
        if (root / FOLDER / ref).exists():
            remove_folder(root / FOLDER / ref)


def too_old(kept: Mapping[str, Entry], id: str) -> list[str]:
    """References of an expert beyond those that are kept, oldest first."""
    mine = sorted((e.manifest.version, ref) for ref, e in kept.items() if e.id == id)
    return [ref for _, ref in mine[:-KEPT]]


def copy_files(entry: Entry, folder: Path) -> None:
    """An entry's files in another folder of the same disk, without copying their bytes."""
    for name in (MANIFEST, *LIMITS):
        source = entry.path / name
        if not source.exists():
            continue
        try:
            os.link(source, folder / name)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, folder / name)
