"""A machine without a file handle or room to spare: an error that says so, and nothing is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experts import atomic
from experts.atomic import atomic_folder, atomic_write, locked
from experts.entries import Entry
from experts.errors import CorruptExpert, LibraryUnreachable, SystemExhausted
from experts.exhaustion import as_exhausted
from experts.files import read_bytes, sha256_of
from experts.library import Library
from tests.experts.handles import no_handle_left


def test_a_file_that_cannot_be_opened_for_now_is_not_called_corrupt(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"sound")
    with no_handle_left():
        for read in (lambda p: read_bytes(p, 9), sha256_of):
            with pytest.raises(SystemExhausted, match="ulimit -n"):
                read(tmp_path / "a")
        with pytest.raises(SystemExhausted), locked(tmp_path):
            pass
        with pytest.raises(CorruptExpert):
            read_bytes(tmp_path / "nowhere", 9)
    assert read_bytes(tmp_path / "a", 9) == b"sound"


def test_a_full_disk_is_told_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()

    def fill() -> None:
        with atomic_folder(tmp_path / "there") as folder:
            (folder / "a").symlink_to("/dev/full")
            (folder / "a").write_text("new")

    with pytest.raises(SystemExhausted, match="No space left"):
        fill()
    (tmp_path / "b").write_text("old")
    real = os.open

    def on_full_disk(path: Path, flags: int, *mode: int) -> int:
        handle = real(path, flags, *mode)
        if not str(path).endswith(".tmp"):
            return handle
        os.close(handle)
        return real("/dev/full", os.O_WRONLY)

    monkeypatch.setattr(os, "open", on_full_disk)
    monkeypatch.setattr(atomic, "_allow_like", lambda *_: None)  # the device keeps its own mode
    with pytest.raises(SystemExhausted, match="No space left"):
        atomic_write(tmp_path / "b", b"new")
    assert (tmp_path / "b").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "there"]


def test_a_look_without_handles_leaves_what_was_known(
    root: Path, stored: Callable[..., Entry], open_library: Callable[[], Library]
) -> None:
    stored("tides")
    stored("winds")
    library = open_library()
    before = dict(library.entries)
    for id in before:
        (root / id / "expert.json").touch()
    with no_handle_left(), pytest.raises(SystemExhausted):
        library.refresh()
    assert dict(library.entries) == before
    assert not library.bad
    library.refresh()
    assert list(library.entries) == list(before)


def test_a_former_version_is_not_given_up_for_want_of_a_handle(
    root: Path, stored: Callable[..., Entry]
) -> None:
    first = stored("tides")
    with no_handle_left(), pytest.raises(SystemExhausted):
        stored("tides")
    second = stored("tides")
    assert second.manifest.version == first.manifest.version + 1
    assert (root / ".versions" / first.ref).is_dir()


def test_a_folder_that_may_not_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(LibraryUnreachable, match="Read-only"), atomic_folder(tmp_path / "a"):
        pass


@pytest.mark.parametrize("refusal", [MemoryError(), RuntimeError("can't start new thread")])
def test_want_of_memory_is_told_from_faults_of_ours(refusal: Exception) -> None:
    assert isinstance(as_exhausted(refusal), SystemExhausted)
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert isinstance(as_exhausted(raised.value), SystemExhausted)
    ours = RuntimeError("shapes do not fit")
    assert as_exhausted(ours) is ours


def test_what_never_recovers_from_want_of_memory_is_done_without() -> None:
    before = torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()
    try:
        as_exhausted(RuntimeError("could not create a primitive"))
        assert not torch._C._get_mkldnn_enabled()
    finally:
        torch.backends.mkldnn.set_flags(before)
