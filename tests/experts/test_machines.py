"""Several machines on one network file system, as its locks are there.

No such file system can be mounted here, so its rules stand in for it: of a folder, `flock` locks
it for one machine alone (Linux has no such call for NFS); of a file it locks it for all, and
refuses to where the file is not open for writing. Each process is a machine of its own.
"""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from experts.atomic import LOCK, atomic_folder, clean_leftovers, locked, share
from experts.entries import Entry
from experts.library import Library

MACHINES, CHANGES = 4, 12
FORK = multiprocessing.get_context("fork")


def lock_as_nfs(handle: int, how: int, lock: Callable[[int, int], None] = fcntl.flock) -> None:
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        return
    writes = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    if how & fcntl.LOCK_EX and not writes:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    lock(handle, how)


@pytest.fixture
def on_machines(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], object]], None]:
    """Do something on every machine at one time."""

    def run(work: Callable[[int], object]) -> None:
        started = [FORK.Process(target=work, args=(n,)) for n in range(MACHINES)]
        for each in started:
            each.start()
        for each in started:
            each.join(60)
        assert [each.exitcode for each in started] == [0] * MACHINES

    monkeypatch.setattr(fcntl, "flock", lock_as_nfs)
    return run


def test_no_change_of_another_machine_is_lost(
    stored: Callable[..., Entry], root: Path, on_machines: Callable[..., None]
) -> None:
    stored("tides")
    Library.open(root)

    def name_it(machine: int) -> None:
        library = Library.open(root)
        for turn in range(CHANGES):
            library.set_alias(f"name-{machine}-{turn}", "tides")
            library.refresh()

    on_machines(name_it)
    aliases = json.loads((root / "aliases.json").read_text())
    assert len(aliases) == MACHINES * CHANGES
    assert dict(Library.open(root).snapshot.aliases) == aliases


def test_a_look_leaves_alone_what_another_machine_is_writing(
    tmp_path: Path, on_machines: Callable[..., None]
) -> None:
    share(tmp_path)

    def write_or_clean(machine: int) -> None:
        for turn in range(CHANGES):
            if machine % 2:
                with locked(tmp_path):
                    clean_leftovers(tmp_path)
            else:
                with atomic_folder(tmp_path / f"{machine}-{turn}") as folder:
                    (folder / "a").write_text("whole")

    on_machines(write_or_clean)
    whole = {f"{machine}-{turn}" for machine in range(0, MACHINES, 2) for turn in range(CHANGES)}
    assert {p.name for p in tmp_path.iterdir()} == {LOCK, *whole}


def test_who_may_only_read_waits_for_writers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(tmp_path)
    asked: list[int] = []
    real = os.open

    def read_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, mode)

    def noted(handle: int, how: int) -> None:
        asked.append(how)
        lock_as_nfs(handle, how)

    monkeypatch.setattr(os, "open", read_only)
    monkeypatch.setattr(fcntl, "flock", noted)
    with locked(tmp_path):
        assert asked == [fcntl.LOCK_EX, fcntl.LOCK_SH]
    (tmp_path / LOCK).unlink()
    share(tmp_path)
    with locked(tmp_path):
        assert not (tmp_path / LOCK).exists()


def test_whoever_may_write_to_the_folder_may_lock_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    share(tmp_path)
    assert stat.S_IMODE((tmp_path / LOCK).stat().st_mode) == 0o664
