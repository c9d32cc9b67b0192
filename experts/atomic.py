"""Folders and files of our own, written atomically, by one writer at a time.

A killed writer leaves the old or the new, and `clean_leftovers` takes away the rest. Knows nothing
of what is written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from experts.exhaustion import raise_if_unreachable

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)

# What a killed writer leaves: `.tmp` was never visible, `.old` was, and may have to come back.
LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<state>tmp|old)")


LOCK = ".lock"
"""Locked beside its folder, where it is there: on NFS the lock of a folder is this machine's alone,
while that of a file is the server's."""


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Only one writer of a folder at a time, in any thread or process; a killed one lets go.

    On other machines too, once the folder is one to `share`.

    Raises:
        SystemExhausted, LibraryUnreachable: why the folder, or what is done inside, fails.
    """
    with _told(), ExitStack() as stack:
        _lock(stack, folder, os.O_RDONLY)
        with suppress(FileNotFoundError):
            _lock(stack, folder / LOCK, os.O_RDWR)
        yield


def share(folder: Path) -> None:
    """Have `locked` keep off writers on other machines, if the folder can be written to.

    Raises:
        SystemExhausted, LibraryUnreachable: why the folder fails.
    """
    path = folder / LOCK
    if path.exists():
        return
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        os.fchmod(handle, folder.stat().st_mode & 0o666)  # whoever may write to the one may lock it
        os.close(handle)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise_if_unreachable(error)
            raise


def _lock(stack: ExitStack, path: Path, flags: int) -> None:
    """Hold a lock until the stack unwinds: against all, or, where one may only read, writers."""
    how = fcntl.LOCK_EX
    try:
        handle = os.open(path, flags)
    except OSError as error:
        if flags == os.O_RDONLY or error.errno not in READ_ONLY:
            raise
        handle, how = os.open(path, os.O_RDONLY), fcntl.LOCK_SH
    stack.callback(os.close, handle)
    fcntl.flock(handle, how)


@contextmanager
def atomic_folder(target: Path) -> Generator[Path]:
    """Fill the folder this gives; on a clean exit it becomes `target`, otherwise nothing happens.

    A kill leaves the old folder or the new one, once `clean_leftovers` has run. Do not nest two
    of them in one parent folder.

    Raises:
        SystemExhausted, LibraryUnreachable: as `locked`.
    """
    with _told():
        target.parent.mkdir(parents=True, exist_ok=True)
    with locked(target.parent):
        fresh = _hidden(target, "tmp")
        fresh.mkdir()
        try:
            yield fresh
            for path in (*fresh.iterdir(), fresh):
                _fsync(path)
            _take_place(fresh, target)
        finally:
            _delete(fresh)


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file so that a reader or a kill sees the old bytes or the new ones."""
    with _told():
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        replace_file(path, data)


def replace_file(path: Path, data: bytes) -> None:
    """`atomic_write` for who holds the lock of its folder; who could read it still can."""
    fresh = _hidden(path, "tmp")
    try:
        _write_like(path, fresh, data)
        fresh.replace(path)
    except OSError:
        _delete(fresh)
        raise
    _fsync(path.parent)


def _write_like(former: Path, fresh: Path, data: bytes) -> None:
    """Write a file to the disk, for those who may read the one whose place it takes."""
    told = former.stat() if former.exists() else None
    mode = 0o666 if told is None else stat.S_IMODE(told.st_mode)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as file:
        if told is not None:
            _allow_like(told, handle)
        file.write(data)
        file.flush()
        os.fsync(handle)


def _allow_like(told: os.stat_result, handle: int) -> None:
    """Give a file owner, group and mode; where that would shut out who could read, all may."""
    for owner, group in ((told.st_uid, told.st_gid), (-1, told.st_gid)):
        with suppress(OSError):
            os.fchown(handle, owner, group)
            break
    now, mode = os.fstat(handle), stat.S_IMODE(told.st_mode)
    shut_out = (now.st_uid != told.st_uid and mode & stat.S_IRUSR) or (
        now.st_gid != told.st_gid and mode & stat.S_IRGRP
    )
    with suppress(OSError):  # some file systems have modes of their own
        os.fchmod(handle, mode | 0o444 if shut_out else mode)


def remove_folder(target: Path) -> bool:
    """Take a folder away in one step, then free its space; False when it was gone already."""
    try:
        with locked(target.parent):
            return take_away(target)
    except FileNotFoundError:
        return False


def take_away(target: Path) -> bool:
    """`remove_folder` for who holds the lock of the folder it stands in."""
    doomed = _hidden(target, "tmp")
    try:
        target.rename(doomed)
    except FileNotFoundError:
        return False
    _fsync(target.parent)
    _delete(doomed)
    return True


def clean_leftovers(folder: Path) -> None:
    """Undo or finish what killed writers left in `folder`, which the caller has `locked`."""
    for name in os.listdir(folder):
        if not (found := LEFTOVER.fullmatch(name)):
            continue
        path, target = folder / name, folder / found["name"]
        if found["state"] == "old" and not target.exists():
            path.rename(target)
        else:
            _delete(path)


@contextmanager
def _told() -> Generator[None]:
    """Tell what fails inside because of the machine, or of the library's folder, as just that."""
    try:
        yield
    except OSError as error:
        raise_if_unreachable(error)
        raise


def _take_place(fresh: Path, target: Path) -> None:
    old = _hidden(target, "old")
    replaces = os.path.lexists(target)
    if replaces:  # a full folder cannot be renamed over: step aside first
        target.rename(old)
    fresh.rename(target)
    _fsync(target.parent)
    if replaces:
        _delete(old)


def _hidden(target: Path, state: str) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.{state}")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
