"""Whatever happens to a writer, a folder is the old one or the new one."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from experts.atomic import atomic_folder, atomic_write, clean_leftovers, remove_folder


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "expert"

    def stop_half_way() -> None:
        with atomic_folder(target) as folder:
            (folder / "a").write_text("1")
            assert not target.exists()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        stop_half_way()
    assert list(target.parent.iterdir()) == []
    for text in ("old", "new"):
        with atomic_folder(target) as folder:
            (folder / text).write_text(text)
    assert [p.name for p in target.iterdir()] == ["new"]
    assert remove_folder(target)
    assert list(target.parent.iterdir()) == []
    assert not remove_folder(target)
    assert not remove_folder(tmp_path / "nowhere" / "expert")


def test_a_failed_replacement_leaves_the_old_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "expert") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "expert") as folder:
        (folder / "a").write_text(str(1 // 0))
    assert (tmp_path / "expert" / "a").read_text() == "old"


def test_leftovers_of_killed_writers_are_cleared(tmp_path: Path) -> None:
    for name in (".one.0123abcd.tmp", ".two.0123abcd.old", ".three.0123abcd.old", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "from").write_text(name)
    (tmp_path / ".git").mkdir()
    clean_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".git", "three", "two"]
    assert (tmp_path / "two" / "from").read_text() == ".two.0123abcd.old"
    assert (tmp_path / "three" / "from").read_text() == "three"


def access(path: Path) -> tuple[int, int, int]:
    told = path.stat()
    return told.st_uid, told.st_gid, told.st_mode & 0o777


def test_a_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    atomic_write(path, b"one")
    plain = access(path)
    path.chmod(0o640)
    atomic_write(path, b"two")
    assert access(path) == (*plain[:2], 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else may give files away")
def test_a_file_keeps_its_owner_and_where_it_cannot_who_could_read_it_still_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    atomic_write(path, b"one")
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    atomic_write(path, b"two")
    assert access(path) == (12345, 12345, 0o600)

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refused)
    atomic_write(path, b"three")
    assert access(path) == (0, 0, 0o644)
    path.chmod(0o600)
    atomic_write(path, b"four")
    assert access(path) == (0, 0, 0o600), "its owner is still who may read it"


def test_files_are_replaced_in_one_step(tmp_path: Path) -> None:
    for data in (b"old", b"new"):
        atomic_write(tmp_path / "new" / "x.json", data)
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "new").iterdir()] == [("x.json", b"new")]


def _write_for_ever(target: Path, done: Connection) -> None:
    for turn in range(10**6):
        with atomic_folder(target) as folder:
            for name in ("a", "b", "c"):
                (folder / name).write_text(str(turn))
        done.send(turn)


def kill_at_random(work: Callable[..., None], root: Path, seed: int) -> int:
    """Run `work` in another process, SIGKILL it at a random moment; the last turn it finished."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=work, args=(root, sender))
    child.start()
    sender.close()
    last = receiver.recv()
    time.sleep(random.Random(seed).uniform(0, 0.02))
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    try:
        while True:
            last = receiver.recv()
    except EOFError:
        return last


@pytest.mark.parametrize("seed", range(8))
def test_a_killed_writer_leaves_old_or_new(tmp_path: Path, seed: int) -> None:
    last = kill_at_random(_write_for_ever, tmp_path / "expert", seed)
    clean_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["expert"]
    turns = {(tmp_path / "expert" / name).read_text() for name in ("a", "b", "c")}
    assert len(turns) == 1
    assert int(turns.pop()) in (last, last + 1)
