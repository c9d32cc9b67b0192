"""Copies of a library: pushed to a store, pulled from it, cut off anywhere, damaged, raced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
import torch

from experts.atomic import LOCK, replace_file
from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.entries import Entry
from experts.errors import MirroredLibrary, MirrorError
from experts.library import Library
from experts.loader import load_expert
from experts.mirror import HELD, Mirror, Mirrored, push
from experts.store import Store, parse_index
from tests.experts.killing import run_killed

SITES = tiny_encoder().sites


@pytest.fixture
def inbox(stored: Callable[..., Entry], tmp_path: Path) -> Path:
    """Two adapters to add."""
    for id in ("one", "two"):
        shutil.copytree(stored(id).path, tmp_path / "inbox" / id)
    shutil.rmtree(tmp_path / "library")
    return tmp_path / "inbox"


@pytest.fixture
def library(encoder64: TextEncoder, root: Path, inbox: Path) -> Library:
    """An expert with a former version, another one, an alias of a version, and constants."""
    library = Library.open(root, fingerprint=encoder64.fingerprint, backbone_id="tiny-random")
    put(library, inbox, "tides", "one")
    put(library, inbox, "tides", "two")
    put(library, inbox, "moons", "one")
    library.set_alias("old-tides", "tides@1")
    library.write_calibration({"format": 1}, {"weights": torch.ones(3)})
    return library


def put(library: Library, inbox: Path, id: str, source: str) -> Entry:
    return library.add(inbox / source, id, sites=SITES, roots=(inbox,), replace=True)


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty store."""
    if request.param == "file":
        yield f"file://{tmp_path}/store"
        return
    yield f"memory://{tmp_path.name}/store"
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{tmp_path.name}"):
        memory.rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy"


def pulled(url: str, root: Path) -> Library:
    Mirror(url, root).pull()
    return Library.open(root)


def same_files(one: Path, other: Path) -> bool:
    def files(root: Path) -> dict[str, bytes]:
        kept = [p for p in root.rglob("*") if p.is_file() and HELD not in p.parts]
        return {str(p.relative_to(root)): p.read_bytes() for p in kept if p.name != ".lock"}

    return files(one) == files(other)


def test_a_copy_is_the_library_file_by_file(library, url, copy, encoder64):
    done = push(library.root, url)
    assert (done.generation, done.deleted) == (library.generation, 0)
    there = pulled(url, copy)
    assert there.generation == library.generation
    assert same_files(library.root, copy)
    assert not any(there.verify().values())
    for ref in ("tides", "tides@1", "old-tides", "moons"):
        mine, theirs = (
            load_expert(each.find(ref), encoder64.sites, dtype=torch.float64)
            for each in (library, there)
        )
        for site, tensors in mine.sites.items():
            assert all(torch.equal(t, theirs.sites[site][n]) for n, t in tensors.items())
    assert push(library.root, url).written == 0, "all of it is there"
    store = Store(url)
    sha = next(iter(store.sizes()))
    store.put(sha, store.get(sha)[:-1])
    assert push(library.root, url).written == 1, "a half of it is not"


def test_a_copy_follows_what_comes_changes_and_goes(library, url, copy, inbox):
    push(library.root, url)
    mirror = Mirror(url, copy)
    assert mirror.pull()
    assert not mirror.pull(), "nothing is new"
    put(library, inbox, "winds", "two")
    put(library, inbox, "moons", "two")
    library.set_alias("old-tides", None)
    library.remove("tides")
    library.write_calibration({"format": 1}, {"weights": torch.zeros(3)})
    push(library.root, url)
    assert mirror.pull()
    assert Library.open(copy).generation == library.generation == mirror.generation
    assert same_files(library.root, copy)
    needed = parse_index(Store(url).index(), url).objects
    assert {p.name for p in (copy / HELD).iterdir()} - {LOCK} == needed
    assert needed < set(Store(url).sizes()), "who still reads by the index before finds its objects"
    assert push(library.root, url).deleted > 0
    assert needed == set(Store(url).sizes())


def test_a_file_that_was_altered_in_a_copy_is_mended_by_the_next(library, url, copy):
    push(library.root, url)
    pulled(url, copy)
    replace_file(copy / "moons" / "expert.json", b"{}")
    assert pulled(url, copy).bad == {}
    assert same_files(library.root, copy)


@pytest.mark.parametrize("what", ["damaged", "missing"])
def test_an_object_that_is_not_what_it_should_be_changes_nothing(library, url, copy, inbox, what):
    push(library.root, url)
    before = pulled(url, copy).generation
    put(library, inbox, "winds", "two")
    put(library, inbox, "moons", "two")
    push(library.root, url)
    store, held = Store(url), {p.name for p in (copy / HELD).iterdir()}
    sha = sorted(set(store.sizes()) - held)[-1]
    whole = store.get(sha)
    store.delete([sha])
    if what == "damaged":
        store.put(sha, whole[:-1] + b"!")
    with pytest.raises(MirrorError, match=sha):
        Mirror(url, copy).pull()
    assert Library.open(copy).generation == before
    store.put(sha, whole)
    assert pulled(url, copy).generation == library.generation


@pytest.mark.parametrize(
    "text",
    [
        "{",
        json.dumps({"format": 2, "generation": "a", "experts": {}}),
        json.dumps({"generation": "a", "experts": {"../out": {}}}),
        json.dumps({"generation": "a", "experts": {"a": {"../out": "0" * 64}}}),
        json.dumps({"generation": "a", "experts": {}, "files": {"../out": "0" * 64}}),
        json.dumps({"generation": "a", "experts": {}, "versions": {"..": {}}}),
        json.dumps({"generation": "a", "experts": {"a": {"expert.json": "../out"}}}),
    ],
)
def test_an_index_that_is_none_or_leaves_the_folder_is_refused(library, url, copy, text):
    push(library.root, url)
    pulled(url, copy)
    Store(url).put_index(text.encode())
    with pytest.raises(MirrorError, match=r"index\.json"):
        Mirror(url, copy).pull()
    assert same_files(library.root, copy)


def test_a_folder_with_work_of_its_own_is_left_alone(library, url, inbox):
    push(library.root, url)
    with pytest.raises(MirrorError, match="of its own"):
        Mirror(url, inbox).pull()
    assert {p.name for p in inbox.iterdir()} == {"one", "two"}


def test_no_library_and_no_such_store_are_told(url, copy):
    with pytest.raises(MirrorError, match="experts push"):
        Mirror(url, copy).pull()
    with pytest.raises(MirrorError, match="Protocol not known"):
        Mirror("nowhere://bucket/library", copy)


def test_what_cannot_be_pushed_leaves_the_index(library, url, inbox, monkeypatch):
    push(library.root, url)
    before = Store(url).index()
    real = Store.put

    def change_meanwhile(store: Store, sha: str, data: bytes) -> None:
        real(store, sha, data)
        put(library, inbox, "moons", "one" if len(data) % 2 else "two")

    put(library, inbox, "winds", "two")
    monkeypatch.setattr(Store, "put", change_meanwhile)
    with pytest.raises(MirrorError, match="changed while it was pushed"):
        push(library.root, url)
    monkeypatch.setattr(Store, "put", real)
    assert Store(url).index() == before
    (library.root / "moons" / "expert.json").write_text("{")
    with pytest.raises(MirrorError, match="moons"):
        push(library.root, url)
    assert Store(url).index() == before


def test_of_two_pushes_at_one_time_one_is_told(library, url, inbox, monkeypatch):
    real = Store.put

    def push_meanwhile(store: Store, sha: str, data: bytes) -> None:
        monkeypatch.setattr(Store, "put", real)
        push(library.root, url)
        real(store, sha, data)

    monkeypatch.setattr(Store, "put", push_meanwhile)
    with pytest.raises(MirrorError, match="another push was faster"):
        push(library.root, url)


def test_a_push_that_is_cut_off_anywhere_leaves_the_library_of_before_or_after(
    library, inbox, tmp_path, copy
):
    url = f"file://{tmp_path}/store"
    push(library.root, url)
    before = library.generation
    put(library, inbox, "winds", "two")
    put(library, inbox, "moons", "two")
    ends: list[str] = []
    for step in range(200):
        shutil.rmtree(tmp_path / "tried", ignore_errors=True)
        shutil.copytree(tmp_path / "store", tmp_path / "tried")
        there = f"file://{tmp_path}/tried"
        lived = run_killed(lambda there=there: push(library.root, there), at=step)
        shutil.rmtree(copy, ignore_errors=True)
        ends.append(pulled(there, copy).generation)
        if lived:
            break
        push(library.root, there)
        assert pulled(there, copy).generation == library.generation
    assert step > 5
    assert set(ends) == {before, library.generation}
    assert ends == sorted(ends, key=[before, library.generation].index)


@pytest.mark.parametrize("stride", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_pull_that_is_cut_off_anywhere_leaves_sound_experts_and_goes_on(
    library, inbox, tmp_path, copy, stride
):
    url = f"file://{tmp_path}/store"
    push(library.root, url)
    pulled(url, tmp_path / "start")
    put(library, inbox, "winds", "two")
    put(library, inbox, "moons", "two")
    library.set_alias("old-tides", None)
    library.remove("tides")
    push(library.root, url)
    for step in range(0, 300, stride):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "start", copy)
        lived = run_killed(lambda: Mirror(url, copy).pull(), at=step)
        there = Library.open(copy)
        assert there.bad == {}
        assert not any(there.verify().values())
        assert pulled(url, copy).generation == library.generation
        assert same_files(library.root, copy)
        if lived:
            break
    assert step > 20


def test_a_library_that_follows_an_address_is_changed_by_nobody_else(
    library, url, copy, inbox, caplog
):
    push(library.root, url)
    follower = Mirrored(Mirror(url, copy), library.fingerprint, library.backbone_id)
    follower.refresh()
    assert follower.generation == library.generation
    with pytest.raises(MirroredLibrary, match="change the one it is pushed from"):
        put(follower, inbox, "winds", "two")
    for change in (follower.remove, follower.set_alias, follower.refit, follower.roll_back,
                   follower.write_calibration):  # fmt: skip
        with pytest.raises(MirroredLibrary):
            change("moons")
    put(library, inbox, "winds", "two")
    push(library.root, url)
    assert follower.refresh().added == ("winds",)

    store = Store(url)
    store.put_index(b"{")
    with pytest.raises(MirrorError):
        follower.refresh()
    assert follower.generation == library.generation
    again = Mirrored(Mirror(url, copy), library.fingerprint, library.backbone_id)
    again.refresh()
    assert again.generation == library.generation
    assert "Serving the copy of before" in caplog.text
    push(library.root, url)
    again.refresh()
