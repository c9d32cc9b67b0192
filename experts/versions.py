"""Former versions of a library's experts, kept beside it so that they can answer or come back.

`.versions/<id>@<version>` holds hard links to the files a version had: keeping one costs no space
until its files are replaced, and no moment passes in which neither version is there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from experts.entries import LIMITS, MANIFEST, Entry, read_entry, read_manifest
from experts.errors import ExpertError
from experts.files import atomic_folder, clean_leftovers, remove_folder

FOLDER = ".versions"
KEPT = 3
"""Former versions kept of one expert; older ones go."""
NAME = re.compile(r"(?P<id>.+)@(?P<version>[0-9]{1,9})")


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
        if entry := find_kept(root, path.name):
            kept[path.name] = entry
    return kept


def find_kept(root: Path, ref: str) -> Entry | None:
    """One kept version, None when it is not there or damaged."""
    folder = root / FOLDER / ref
    try:
        entry = read_entry(folder) if folder.is_dir() else None
    except ExpertError:
        return None
    return entry if entry and entry.ref == ref else None


def highest(root: Path, id: str) -> int:
    """The highest version of an expert that lies in a library, kept ones included; 0 for none.

    The next one must be higher: `id@version` names one set of tensors for good, and after a roll
    back the current version is not the highest.
    """
    versions = [version for _, version in _names(root, id)]
    with suppress(ExpertError):
        versions.append(read_manifest(root / id).version)
    return max(versions, default=0)


def keep(root: Path, entry: Entry) -> Entry:
    """Keep an entry's files as they are now; the entry to find them by."""
    target = root / FOLDER / entry.ref
    if not target.exists():
        with atomic_folder(target) as folder:
            copy_files(entry, folder)
    return Entry(target, entry.manifest)


def forget(root: Path, id: str, *, but: int = 0, spare: Collection[str] = ()) -> list[str]:
    """Delete an expert's kept versions, whoever kept them, except the newest few.

    Args:
        but: how many stay. spare: references of versions that stay beside these.

    Returns:
        The references that are gone.
    """
    found = sorted(_names(root, id), key=lambda found: found[1])
    names = [path for path, _ in found if path.name not in spare]
    gone = names[: len(names) - but] if but < len(names) else []
    for path in gone:
        remove_folder(path)
    return [path.name for path in gone]


def _names(root: Path, id: str) -> list[tuple[Path, int]]:
    """The folders of an expert's kept versions, and which versions they are."""
    folder = root / FOLDER
    found: list[tuple[Path, int]] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        name, version = parse_reference(path.name)
        if name == id and version is not None:
            found.append((path, version))
    return found


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
