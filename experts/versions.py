"""Former versions of a library's experts, kept beside it so that they can answer or come back.

`.versions/<id>@<version>` holds hard links to the files a version had: keeping one costs no space
until its files are replaced, and no moment passes in which neither version is there.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from experts.atomic import atomic_folder, remove_folder
from experts.entries import LIMITS, MANIFEST, Entry, problems, read_entry, read_manifest
from experts.errors import BadExpert, CorruptExpert

FOLDER = ".versions"
KEPT = 3
"""Former versions kept of one expert; older ones go."""
NAME = re.compile(r"(?P<id>.+)@(?P<version>[0-9]{1,9})")


def parse_reference(name: str) -> tuple[str, int | None]:
    """An id and a version, None where the name says none: the current one."""
    found = NAME.fullmatch(name)
    return (found["id"], int(found["version"])) if found else (name, None)


def read_kept(folder: Path) -> Entry:
    """A kept version.

    Raises:
        BadExpert: it is damaged, or not the version that the folder's name says.
    """
    entry = read_entry(folder)
    if entry.ref != folder.name:
        raise CorruptExpert(f"The folder's name is not what is kept in it, {entry.ref!r}.")
    return entry


def find_kept(root: Path, ref: str) -> Entry | None:
    """One kept version, None when it is not there or damaged."""
    folder = root / FOLDER / ref
    try:
        return read_kept(folder) if folder.is_dir() else None
    except BadExpert:
        return None


def sound_entry(folder: Path) -> Entry | None:
    """The expert in a folder; None where there is none, or one whose files are damaged."""
    try:
        entry = read_entry(folder) if folder.is_dir() else None
    except BadExpert:
        return None
    return entry if entry and not problems(entry) else None


def highest(root: Path, id: str) -> int:
    """The highest version of an expert that lies in a library, kept ones included; 0 for none.

    The next one must be higher: `id@version` names one set of tensors for good, and after a roll
    back the current version is not the highest.
    """
    versions = [version for _, version in _names(root, id)]
    with suppress(BadExpert):
        versions.append(read_manifest(root / id).version)
    return max(versions, default=0)


def keep(root: Path, entry: Entry) -> Entry:
    """Keep an entry's files as they are now; the entry to find them by."""
    target = root / FOLDER / entry.ref
    if not target.exists():
        with atomic_folder(target) as folder:
            copy_files(entry, folder)
    return Entry(target, entry.manifest)


def forget(
    root: Path, id: str, current: int | None = None, *, spare: Collection[str] = ()
) -> list[str]:
    """Delete an expert's kept versions, whoever kept them.

    Args:
        current: the version that answers now: as many former ones as are kept stay. None deletes
            all of them. spare: references of versions that stay beside these.

    Returns:
        The references that are gone.
    """
    kept = {version: path for path, version in _names(root, id)}
    gone = sorted(kept) if current is None else _surplus(kept, current, spare)
    for version in gone:
        remove_folder(kept[version])
    return [kept[version].name for version in gone]


def tidy(root: Path, current: Mapping[str, int], spare: Collection[str] = ()) -> None:
    """Finish what writers who were killed had begun to forget; the caller has `root` locked.

    Args:
        current: the version that answers now, by id. Of experts that are there and not in it,
            nothing is deleted. spare: as in `forget`.
    """
    kept: dict[str, dict[int, Path]] = {}
    for name in os.listdir(root / FOLDER):
        id, version = parse_reference(name)
        if version is not None:
            kept.setdefault(id, {})[version] = root / FOLDER / name
    for id, paths in kept.items():
        if id in current:
            gone = _surplus(paths, current[id], spare)
        else:
            gone = [] if os.path.lexists(root / id) else list(paths)
        for version in gone:
            remove_folder(paths[version])


def _surplus(kept: Mapping[int, Path], current: int, spare: Collection[str]) -> list[int]:
    """The versions to forget: all but the newest few besides the current one and those spared."""
    former = sorted(v for v, path in kept.items() if v != current and path.name not in spare)
    return former[: max(0, len(former) - KEPT)]


def _names(root: Path, id: str) -> list[tuple[Path, int]]:
    """The folders of an expert's kept versions, and which versions they are."""
    folder = root / FOLDER
    found: list[tuple[Path, int]] = []
    for name in os.listdir(folder) if folder.is_dir() else ():
        if not name.startswith(f"{id}@"):  # nearly all of thousands
            continue
        owner, version = parse_reference(name)
        if owner == id and version is not None:
            found.append((folder / name, version))
    return found


def copy_files(entry: Entry, folder: Path) -> None:
    """An entry's files in another folder of the same disk, without copying their bytes."""
    for name in (MANIFEST, *LIMITS):
        source = entry.path / name
        if source.exists():
            link_or_copy(source, folder / name)


def link_or_copy(source: Path, target: Path) -> None:
    """Have a file stand at `target` too; its bytes are copied only where there are no hard links.

    For files that are replaced and never written into, as all of ours are.
    """
    try:
        os.link(os.path.realpath(source), target)  # of a symlink the file, not the name
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
