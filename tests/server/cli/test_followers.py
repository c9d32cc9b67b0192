"""Servers that follow a library in an object store: real processes, a folder for the store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from experts.backbones.tiny import tiny_encoder
from experts.library import Library
from experts.mirror import push
from tests.server.cli.replicas import Place, Replica, make_place, replicas, until

TINY = tiny_encoder()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("pushed"))


@pytest.fixture(scope="module")
def url(place: Place) -> str:
    return f"file://{place.inbox.parent}/store"


@pytest.fixture(scope="module")
def both(place: Place, url: str) -> Iterator[list[Replica]]:
    """Two servers, each with a copy of its own."""
    push(place.library, url)
    with replicas(place, own="copy", LIBRARY_URL=url) as started:
        yield started


def opened(place: Place) -> Library:
    return Library.open(place.library, fingerprint=TINY.fingerprint, backbone_id=TINY.id)


def test_both_come_to_what_is_pushed(both, place, url):
    library = opened(place)
    assert {each.generation for each in both} == {library.generation}
    for source in ("one", "two"):
        library.add(
            place.inbox / source, "guest", sites=TINY.sites, roots=(place.inbox,), replace=True
        )
    library.set_alias("visitor", "guest@1")
    library.remove("weather")
    assert push(place.library, url).generation == library.generation
    for each in both:
        until(lambda each=each: each.generation == library.generation)
        for model in ("guest", "guest@1", "visitor"):
            asked = {"model": model, "input": "A text.", "questions": [{"type": "choice"}]}
            assert each.client.post("/v1/decisions", json=asked).status_code == 200
        assert each.ids == {"guest", "mood"}


def test_what_is_damaged_in_the_store_reaches_neither(both, place, url):
    store, before = place.inbox.parent / "store", both[0].generation
    library = opened(place)
    library.add(place.inbox / "two", "broken", sites=TINY.sites, roots=(place.inbox,))
    index, objects = (store / "index.json").read_bytes(), set((store / "objects").iterdir())
    push(place.library, url)
    new = set((store / "objects").iterdir()) - objects
    whole = {path: path.read_bytes() for path in new}
    for path in new:
        path.write_bytes(b"?" * len(whole[path]))
    for each in both:
        refused = each.client.post("/v1/experts/scan")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "mirror_failed"
        assert (each.generation, each.ids) == (before, {"guest", "mood"})
    for path in new:
        path.write_bytes(whole[path])
    for each in both:
        until(lambda each=each: "broken" in each.ids)
    assert index != (store / "index.json").read_bytes()


def test_a_follower_is_not_changed_by_hand(both, place):
    add = {"source": place.source("one"), "id": "mine"}
    for method, path, body in (
        ("POST", "/v1/experts", add),
        ("DELETE", "/v1/experts/mood", None),
        ("PUT", "/v1/aliases/name", {"expert": "mood"}),
    ):
        refused = both[0].client.request(method, path, json=body)
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "library_mirrored"


@pytest.mark.slow  # another start of a server
def test_without_the_store_a_server_starts_with_its_copy(both, place, url):
    generation = both[0].generation
    away = shutil.move(place.inbox.parent / "store", place.inbox.parent / "away")
    try:
        with replicas(place, 1, own="copy", LIBRARY_URL=url) as (again,):
            assert again.generation == generation
    finally:
        shutil.move(away, place.inbox.parent / "store")


def test_push_and_pull_by_hand(run, place, tmp_path):
    url, root = f"file://{tmp_path}/store", str(place.library)
    pushed = run("experts", "push", url, "--library", root)
    assert pushed.exit_code == 0, pushed.output
    generation = opened(place).generation
    assert pushed.stdout.strip() == generation
    pulled = run("experts", "pull", url, "--library", str(tmp_path / "copy"))
    assert pulled.stdout.strip() == generation
    refused = run("experts", "pull", url, "--library", root)
    assert refused.exit_code == 1
    assert "of its own" in " ".join(refused.output.split())
