"""One change by a process that is killed before each of its steps: the library as before or after.

Every step of every change is tried: whatever creates, renames, links, writes or deletes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experts.atomic import LOCK
from experts.backbones import TextEncoder
from experts.entries import Entry
from experts.library import Library
from experts.loader import load_expert
from experts.versions import FOLDER, KEPT
from tests.experts.killing import run_killed

Change = Callable[[Library], object]


@pytest.fixture
def change(
    request: pytest.FixtureRequest, encoder64: TextEncoder, inbox: Path
) -> tuple[int, Change]:
    """How many versions there are before, and what is done then."""

    def put(id: str, source: str, *, replace: bool) -> Change:
        return lambda library: library.add(
            inbox / source, id, sites=encoder64.sites, roots=(inbox,), replace=replace
        )

    changes: dict[str, tuple[int, Change]] = {
        "add": (1, put("new", "two", replace=False)),
        "replace": (1, put("old", "two", replace=True)),
        "replace, and forget": (KEPT + 1, put("old", "two", replace=True)),
        "roll back": (3, lambda library: library.roll_back("old", 2)),
        "remove": (3, lambda library: library.remove("old")),
    }
    return changes[request.param]


@pytest.fixture
def inbox(stored: Callable[..., Entry], tmp_path: Path) -> Path:
    """Two adapters to add."""
    for id in ("one", "two"):
        shutil.copytree(stored(id).path, tmp_path / "inbox" / id)
    shutil.rmtree(tmp_path / "library")
    return tmp_path / "inbox"


def state(library: Library) -> object:
    """All that can be told of a library from outside."""
    snapshot = library.snapshot
    versions = {
        id: [(e.manifest.version, tuple(e.manifest.files.values())) for e in snapshot.versions(id)]
        for id in snapshot.entries
    }
    current = {id: e.manifest.version for id, e in snapshot.entries.items()}
    return snapshot.generation, current, versions, dict(snapshot.bad)


@pytest.mark.parametrize(
    "change",
    [
        "add",
        pytest.param("replace", marks=pytest.mark.slow),  # a part of the next
        "replace, and forget",
        "roll back",
        "remove",
    ],
    indirect=True,
)
def test_whenever_it_is_killed_the_library_is_as_before_or_after(
    change: tuple[int, Change], encoder64: TextEncoder, inbox: Path, tmp_path: Path
) -> None:
    count, act = change

    def opened(root: Path) -> Library:
        return Library.open(root, fingerprint=encoder64.fingerprint, backbone_id="tiny-random")

    start = opened(tmp_path / "start")
    for turn in range(count):
        source = inbox / ("one", "two")[turn % 2]
        start.add(source, "old", sites=encoder64.sites, roots=(inbox,), replace=True)
    ends = [state(start)]
    done = opened(shutil.copytree(start.root, tmp_path / "done"))
    act(done)
    ends.append(state(done))
    seen: list[object] = []
    for step in range(1000):
        watcher = opened(shutil.copytree(start.root, tmp_path / f"killed-{step}"))
        root = watcher.root
        lived = run_killed(lambda root=root: act(opened(root)), at=step)
        watcher.refresh()
        seen.append(state(watcher))
        assert seen[-1] in ends, f"killed before step {step}"
        assert seen[-1] == state(opened(root))
        require_clean(watcher, encoder64)
        if lived:
            break
    assert step > 5
    assert (seen[0], seen[-1]) == (ends[0], ends[1])
    assert seen == sorted(seen, key=ends.index), "once it is after it is not before again"


def require_clean(library: Library, encoder: TextEncoder) -> None:
    """Nothing is left over, and all that is there can be served."""
    names = {p.name for p in library.root.iterdir()}
    assert names - {FOLDER, LOCK} == set(library.entries)
    if FOLDER in names:
        kept = {p.name for p in (library.root / FOLDER).iterdir()}
        assert kept == set(library.snapshot.kept)
    assert all(found == [] for found in library.verify().values())
    for id in library.entries:
        for entry in library.snapshot.versions(id):
            load_expert(entry, encoder.sites, dtype=torch.float64)
