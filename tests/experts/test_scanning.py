"""A library that others change: what a look at its folder finds, and what it does not read."""

from __future__ import annotations

import multiprocessing
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from experts.backbones import TextEncoder
from experts.entries import CONFIG, MANIFEST, ROUTING, WEIGHTS, Entry
from experts.errors import CorruptExpert, ExpertError, LibraryUnreachable
from experts.library import Library
from experts.scanning import Scanner
from experts.versions import FOLDER, KEPT, keep
from experts.writing import write_scores

Stored = Callable[..., Entry]
Open = Callable[[], Library]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that are read, as they are."""
    seen: list[str] = []
    read = Scanner.read
    monkeypatch.setattr(Scanner, "read", lambda self, f: (seen.append(f.name), read(self, f))[1])
    return seen


def test_only_what_changed_is_read(
    stored: Stored, open_library: Open, settled: None, reads: list[str]
) -> None:
    for id in ("tides", "clouds", "birds"):
        stored(id)
    library = open_library()
    tides = library.get("tides")
    reads.clear()
    assert not library.refresh().replaced
    assert reads == []
    stored("clouds")
    found = library.refresh()
    assert (found.replaced, found.added, found.removed, found.bad) == (("clouds",), (), (), ())
    assert reads == ["clouds"]
    assert library.get("tides") is tides


@pytest.mark.parametrize("name", [MANIFEST, CONFIG, WEIGHTS, ROUTING])
def test_a_file_written_in_place_is_seen(
    stored: Stored, open_library: Open, settled: None, reads: list[str], name: str
) -> None:
    path = stored("tides").path / name
    library = open_library()
    reads.clear()
    path.write_bytes(path.read_bytes())  # the same folder, inode and size
    library.refresh()
    assert reads == ["tides"]


def test_what_was_written_a_moment_ago_is_read_again(
    stored: Stored, open_library: Open, reads: list[str]
) -> None:
    """Within one tick of the file system's clock a second write leaves no sign."""
    stored("tides")
    library = open_library()
    reads.clear()
    library.refresh()
    assert reads == ["tides"]


def test_a_bad_folder_is_read_again_once_it_changed(
    stored: Stored, open_library: Open, settled: None, reads: list[str]
) -> None:
    path = stored("tides").path
    whole = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(whole[:100])
    library = open_library()
    reads.clear()
    assert library.refresh().bad == ("tides",)
    assert reads == []
    (path / WEIGHTS).write_bytes(whole)
    found = library.refresh()
    assert (found.added, found.bad) == (("tides",), ())


def test_a_copy_under_way_is_bad_with_the_reason_until_it_is_whole(
    stored: Stored, open_library: Open, tmp_path: Path, root: Path
) -> None:
    source = shutil.copytree(stored("tides").path, tmp_path / "tides")
    library = open_library()
    library.remove("tides")
    copy = root / "tides"
    copy.mkdir()
    assert not library.refresh().bad  # nothing that would tell it from a folder of notes
    reasons: list[str] = []
    whole = (source / WEIGHTS).read_bytes()
    for name, data in ((MANIFEST, None), (CONFIG, None), (WEIGHTS, whole[:999]), (WEIGHTS, whole)):
        (copy / name).write_bytes(data or (source / name).read_bytes())
        assert library.refresh().bad == ("tides",)
        reasons.append(library.bad["tides"])
    assert WEIGHTS in reasons[0]
    assert CONFIG not in reasons[1]
    assert "999 bytes" in reasons[2]
    assert ROUTING in reasons[3]
    shutil.copyfile(source / ROUTING, copy / ROUTING)
    found = library.refresh()
    assert (found.added, found.bad) == (("tides",), ())
    assert library.verify() == {"tides": []}


def test_what_an_operator_deletes_is_gone_with_its_versions_and_its_numbers(
    stored: Stored, open_library: Open, root: Path, encoder64: TextEncoder
) -> None:
    library, entry = open_library(), stored("tides")
    library.refresh()
    keep(root, entry)
    library.add(entry.path, "tides", sites=encoder64.sites, roots=(root,), replace=True)
    assert [e.manifest.version for e in library.snapshot.versions("tides")] == [1, 2]
    source = shutil.copytree(root / "tides", root.parent / "aside")
    shutil.rmtree(root / "tides")
    found = library.refresh()
    assert (found.removed, list(library.snapshot.kept)) == (("tides",), [])
    assert list((root / FOLDER).iterdir()) == []
    again = library.add(source, "tides", sites=encoder64.sites, roots=(root.parent,))
    assert again.manifest.version == 3


def test_a_folder_that_is_not_there_takes_no_experts_away(
    stored: Stored, open_library: Open, root: Path
) -> None:
    """A disk that was unmounted is no order to forget."""
    stored("tides")
    library = open_library()
    before = library.snapshot
    root.rename(root.with_name("away"))
    with pytest.raises(LibraryUnreachable, match="is not there"):
        library.refresh()
    assert library.snapshot is before
    root.with_name("away").rename(root)
    library.refresh()
    assert library.snapshot is before


def test_a_folder_that_cannot_be_read_is_bad_and_stops_no_look(
    stored: Stored, open_library: Open, root: Path
) -> None:
    stored("tides")
    (root / "loop").symlink_to("loop")
    library = open_library()
    assert set(library.entries) == {"tides"}
    assert "symbolic links" in library.bad["loop"]


def test_damaged_constants_of_another_change_nothing(
    stored: Stored, open_library: Open, root: Path
) -> None:
    stored("tides")
    library = open_library()
    library.write_calibration({"beta": 1.0})
    before = library.snapshot
    for text in ("{", '{"beta": 2, "tensors": "calibration-0.safetensors"}'):
        (root / "calibration.json").write_text(text)
        stored("clouds")
        with pytest.raises(CorruptExpert):
            library.refresh()
        assert library.snapshot is before
    (root / "calibration.json").write_text('{"beta": 2}')
    assert library.refresh().added == ("clouds",)
    assert library.calibration == {"beta": 2}


def test_what_killed_writers_left_is_finished(
    stored: Stored, open_library: Open, root: Path
) -> None:
    """One had replaced an expert and not yet forgotten the oldest version; one had removed."""
    for _ in range(KEPT + 2):
        keep(root, stored("tides"))
    stored("tides")
    keep(root, stored("gone"))
    shutil.rmtree(root / "gone")
    half = root / FOLDER / ".tides@9.0123abcd.tmp"
    half.mkdir()
    library = open_library()
    names = {f"tides@{v}" for v in range(3, KEPT + 3)}
    assert library.snapshot.kept.keys() == names
    assert {p.name for p in (root / FOLDER).iterdir()} == names


def test_the_generation_is_that_of_the_content(
    stored: Stored, open_library: Open, root: Path
) -> None:
    stored("tides")
    library = open_library()
    seen = {library.generation}

    def differs() -> None:
        library.refresh()
        assert library.generation == open_library().generation
        assert library.generation not in seen
        seen.add(library.generation)

    stored("clouds")
    differs()
    keep(root, library.get("clouds"))
    library.refresh()
    assert library.generation in seen, "a copy of the current version changes no answer"
    stored("clouds")
    differs()
    library.write_calibration({"beta": 0.25})
    differs()
    (root / "bad").mkdir()
    (root / "bad" / CONFIG).write_text("{}")
    differs()
    write_scores(library.get("tides"), {"test": 1})
    library.refresh()
    assert library.generation in seen, "what was measured changes no answer"


def test_progress_counts_the_folders(stored: Stored, root: Path) -> None:
    for id in ("tides", "clouds"):
        stored(id)
    told: list[tuple[int, int]] = []
    Library.open(root, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 2), (1, 2)]


def _churn(root: Path, inbox: Path, encoder: TextEncoder, seed: int, line: Connection) -> None:
    """Another process: 40 random changes, and a look once it is told to."""
    torch.set_num_threads(1)
    rng, sources = random.Random(seed), sorted(inbox.iterdir())
    library = Library.open(root, fingerprint=encoder.fingerprint, backbone_id=encoder.id)

    def put(replace: bool) -> None:
        library.add(
            rng.choice(sources), rng.choice("abcd"), sites=encoder.sites, roots=(inbox,),
            replace=replace,
        )  # fmt: skip

    changes: tuple[Callable[[], object], ...] = (
        lambda: put(False), lambda: put(True), lambda: put(True), library.refresh,
        lambda: library.roll_back(rng.choice("abcd"), rng.randint(1, 9)),
        lambda: library.remove(rng.choice("abcd")),
        lambda: shutil.rmtree(root / rng.choice("abcd"), ignore_errors=True),
        lambda: library.write_calibration({"beta": rng.random()}),
    )  # fmt: skip
    for _ in range(40):
        with suppress(ExpertError, OSError):
            rng.choice(changes)()
    line.send("done")
    line.recv()
    library.refresh(again=True)
    files = {e.ref: dict(e.manifest.files) for e in library.entries.values()}
    line.send((library.generation, files,
               sorted(library.snapshot.kept), dict(library.bad), library.calibration))  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_two_processes_on_one_folder_converge(
    stored: Stored, root: Path, tmp_path: Path, open_library: Open, encoder64: TextEncoder,
    seed: int,
) -> None:  # fmt: skip
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for id, kind in (("one", "lora"), ("two", "bottleneck"), ("three", "lora")):
        stored(id, kind).path.rename(inbox / id)
    fork = multiprocessing.get_context("fork")
    lines = [fork.Pipe() for _ in "ab"]
    both = [
        fork.Process(target=_churn, args=(root, inbox, encoder64, 2 * seed + i, lines[i][1]))
        for i in range(2)
    ]
    for process in both:
        process.start()
    assert [ours.recv() for ours, _ in lines] == ["done"] * 2
    for ours, _ in lines:
        ours.send("look")
    ends = [ours.recv() for ours, _ in lines]
    for process in both:
        process.join()
    library = open_library()
    assert ends[0] == ends[1]
    assert (ends[0][0], ends[0][3]) == (library.generation, {})
    assert all(found == [] for found in library.verify().values())
    assert {p.name for p in root.iterdir() if p.is_dir()} - {FOLDER} == set(library.entries)
