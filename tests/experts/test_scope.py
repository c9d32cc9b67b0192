"""What a limited caller sees of a library, and what it may add to it."""

import pytest

from experts.entries import Entry
from experts.errors import BadTags, UnknownExpert
from experts.scope import EVERYTHING, Scope
from experts.snapshot import Snapshot

A = Scope(frozenset({"a", "common"}))


@pytest.fixture
def snapshot(manifest_of, tmp_path):
    def entry(id, *tags, version=1):
        return Entry(tmp_path / id, manifest_of(id, tags=tags, version=version))

    entries = {e.id: e for e in (entry("mine", "a", "b", version=3), entry("theirs", "b"),
                                 entry("shared", "common", version=2), entry("bare"))}  # fmt: skip
    kept = {e.ref: e for e in (entry("mine", "a"), entry("mine", "b", version=2),
                               entry("shared"), entry("theirs", "a", version=7))}  # fmt: skip
    aliases = {"now": "mine", "old": "mine@1", "older": "mine@2", "other": "theirs", "gone": "x"}
    return Snapshot(entries, {"broken": "why"}, {"version": "c1"}, kept=kept, aliases=aliases)


def test_everything_is_the_library_itself(snapshot):
    assert snapshot.within(EVERYTHING) is snapshot


def test_a_part_holds_what_carries_a_tag_and_what_names_it(snapshot):
    part = snapshot.within(A)
    assert list(part.entries) == ["mine", "shared"]
    assert set(part.kept) == {"mine@1"}, "a version is seen by its own tags, and the expert's"
    assert dict(part.aliases) == {"now": "mine", "old": "mine@1"}
    assert part.bad == {}
    assert part.calibration == snapshot.calibration
    assert part.tagged.keys() == {"a", "common"}, "'b' does not exist for it"
    assert [e.ref for e in part.versions("mine")] == ["mine@1", "mine@3"]
    with pytest.raises(UnknownExpert, match=r"no expert 'theirs'\.$"):
        part.find("theirs@7")
    with pytest.raises(UnknownExpert, match="there are: 1, 3"):
        part.find("mine@2")


def test_callers_of_the_same_tags_share_a_part(snapshot):
    assert snapshot.within(A) is snapshot.within(Scope(frozenset({"a", "common", "unknown"})))
    assert snapshot.within(A) is not snapshot.within(Scope(frozenset({"a"})))
    assert snapshot.within(Scope(frozenset({"unknown"}))).entries == {}


def test_an_unlimited_caller_gives_any_tags_of_their_form(manifest_of):
    assert EVERYTHING.tags_for(["x", "y.z-1_2"], None, manifest_of("e", tags=["a"])) == (
        "x", "y.z-1_2",
    )  # fmt: skip
    assert EVERYTHING.tags_for([], manifest_of("e", tags=["a"]), None) == ()
    for tag in ("", "a b", "a,b", "-a", "é", "tag:a", "a\n", "x" * 65):
        with pytest.raises(BadTags, match="letters, digits"):
            EVERYTHING.tags_for(["fine", tag], None, None)


def test_a_limited_caller_gives_its_own_tags(manifest_of):
    former, brought = manifest_of("e", tags=["a", "b"]), manifest_of("e", tags=["common"])
    assert A.tags_for(["a"], None, None) == ("a",)
    assert A.tags_for([], brought, None) == ("common",)
    assert A.tags_for([], None, former) == ("a", "b"), "as it was"
    assert A.tags_for(["common"], brought, former) == ("common", "b"), "others still see it"
    for given, known in (((), None), (("b",), None), (("a", "b"), None), ((), former)):
        with pytest.raises(BadTags, match="a, common"):
            A.tags_for(given, known, None)
