"""Other names of experts: what may be one, what it stands for, and what it holds on to."""

import json

import pytest

from experts.aliases import ALIASES
from experts.errors import (
    AliasedExpert,
    BadExpert,
    CorruptExpert,
    DuplicateExpert,
    UnknownAlias,
    UnknownExpert,
)
from experts.library import Library
from experts.versions import KEPT


@pytest.fixture
def library(tmp_path, encoder64):
    return Library.open(tmp_path / "library", fingerprint=encoder64.fingerprint, backbone_id="tiny")


@pytest.fixture
def put(library, peft_folder, encoder64, tmp_path):
    """Add or replace an expert by an adapter of its own rank: `put(4)`."""

    def add(rank=2, id="tone", into=library):
        folder = peft_folder(f"rank{rank}", target_modules=["query"], r=rank)
        return into.add(folder, id, sites=encoder64.sites, roots=(tmp_path,), replace=True)

    return add


def test_an_alias_follows_its_expert_or_stays_with_a_version(library, put):
    first = put(2)
    library.set_alias("prod", "tone")
    library.set_alias("frozen", "tone@1")
    assert library.find("prod") is library.find("frozen") is first
    second = put(4)
    assert library.find("prod") is second
    assert library.find("frozen").manifest == first.manifest
    library.roll_back("tone", 1)
    assert library.find("prod").manifest.version == 1
    again = Library.open(library.root, fingerprint=library.fingerprint)
    assert dict(again.snapshot.aliases) == {"frozen": "tone@1", "prod": "tone"}
    assert json.loads((library.root / ALIASES).read_text()) == dict(again.snapshot.aliases)


def test_an_alias_may_come_to_stand_for_something_else_and_go(library, put):
    put(2)
    put(2, "mood")
    library.set_alias("prod", "tone")
    before = library.generation
    library.set_alias("prod", "mood")
    assert library.generation != before
    assert library.find("prod").id == "mood"
    before = library.generation
    library.set_alias("prod", "mood")
    assert library.generation == before, "nothing changed"
    library.set_alias("prod", None)
    with pytest.raises(UnknownExpert):
        library.find("prod")
    with pytest.raises(UnknownAlias, match="there are: none"):
        library.set_alias("prod", None)


@pytest.mark.parametrize(
    ("name", "ref", "error"),
    [("tone", "mood", DuplicateExpert), ("auto", "tone", DuplicateExpert),
     ("tiny", "tone", DuplicateExpert), ("tone@1", "tone", BadExpert), ("", "tone", BadExpert),
     ("../x", "tone", BadExpert), (".hidden", "tone", BadExpert), ("new", "nobody", UnknownExpert),
     ("new", "tone@9", UnknownExpert), ("new", "prod", BadExpert), ("new", "prod@1", UnknownExpert),
     ("new", "", UnknownExpert)],
)  # fmt: skip
def test_what_cannot_be_an_alias(library, put, name, ref, error):
    put(2)
    put(2, "mood")
    library.set_alias("prod", "tone")
    with pytest.raises(error):
        library.set_alias(name, ref)
    assert dict(library.snapshot.aliases) == {"prod": "tone"}


def test_an_empty_library_has_none(library):
    with pytest.raises(UnknownExpert):
        library.set_alias("prod", "tone")


def test_no_expert_takes_the_name_of_an_alias(library, put, stored):
    put(2)
    library.set_alias("prod", "tone")
    with pytest.raises(DuplicateExpert, match="an alias of 'tone'"):
        put(2, "prod")
    stored("prod")  # moved there by hand
    library.refresh()
    assert list(library.entries) == ["tone"]
    assert "an alias of 'tone'" in library.bad["prod"]
    assert library.find("prod").id == "tone"
    library.set_alias("prod", None)
    library.refresh()
    assert list(library.entries) == ["prod", "tone"]


def test_an_expert_that_aliases_stand_for_is_not_removed(library, put):
    put(2)
    put(4)
    library.set_alias("prod", "tone")
    library.set_alias("frozen", "tone@1")
    with pytest.raises(AliasedExpert, match=r"aliases stand for it: frozen, prod") as refused:
        library.remove("tone")
    assert refused.value.details == {"aliases": ["frozen", "prod"]}
    assert [e.manifest.version for e in library.snapshot.versions("tone")] == [1, 2]
    library.set_alias("prod", None)
    with pytest.raises(AliasedExpert):
        library.remove("tone")
    library.set_alias("frozen", None)
    library.remove("tone")
    assert dict(library.entries) == {}


def test_a_version_that_an_alias_pins_is_kept_however_many_follow(library, put):
    for rank in range(1, 3):
        put(rank)
    library.set_alias("frozen", "tone@2")
    for rank in range(3, 3 + KEPT + 2):
        put(rank)
    last = library.get("tone").manifest.version
    kept = [e.manifest.version for e in library.snapshot.versions("tone")]
    assert kept == [2, *range(last - KEPT, last + 1)]
    assert library.find("frozen").path.is_dir()
    assert library.verify().keys() == {"tone", *(f"tone@{v}" for v in kept[:-1])}
    library.set_alias("frozen", None)
    put(2)
    assert 2 not in [e.manifest.version for e in library.snapshot.versions("tone")]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a": 1}', '{"a@1": "tone"}', '{"../x": "tone"}', '{"a": null}']
)
def test_a_damaged_file_is_told_at_open(library, put, text):
    put(2)
    (library.root / ALIASES).write_text(text)
    with pytest.raises(CorruptExpert, match=ALIASES):
        Library.open(library.root, fingerprint=library.fingerprint)
    before = library.snapshot
    with pytest.raises(CorruptExpert, match=ALIASES):
        put(4)
    with pytest.raises(CorruptExpert, match=ALIASES):
        library.set_alias("prod", "tone")
    assert library.snapshot is before


def test_two_processes_see_each_others_aliases(library, put):
    put(2)
    other = Library.open(library.root, fingerprint=library.fingerprint, backbone_id="tiny")
    library.set_alias("ours", "tone")
    other.set_alias("theirs", "tone@1")
    assert dict(other.snapshot.aliases) == {"ours": "tone", "theirs": "tone@1"}
    library.refresh()
    assert library.snapshot.aliases == other.snapshot.aliases
    third = Library.open(library.root, fingerprint=library.fingerprint, backbone_id="tiny")
    library.set_alias("late", "tone")
    with pytest.raises(AliasedExpert, match="late"):  # it was not there when this one looked
        third.remove("tone")
    with pytest.raises(DuplicateExpert):
        put(2, "late", into=third)


def test_an_alias_of_what_another_process_took_away_is_refused(library, put):
    put(2)
    other = Library.open(library.root, fingerprint=library.fingerprint)
    other.remove("tone")
    with pytest.raises(UnknownExpert, match="Another process"):
        library.set_alias("prod", "tone")


def test_an_alias_of_a_bad_expert_stays_and_says_why(library, put):
    entry = put(2)
    library.set_alias("prod", "tone")
    library.set_aside(entry, "It would not load.")
    with pytest.raises(UnknownExpert, match="It would not load"):
        library.find("prod")
    library.refresh()
    assert library.find("prod").id == "tone"


def test_an_alias_is_hinted_at(library, put):
    put(2)
    library.set_alias("prod-reviews", "tone")
    with pytest.raises(UnknownExpert, match="Did you mean prod-reviews"):
        library.find("prod-review")
    with pytest.raises(UnknownExpert, match="is an alias; name the expert itself: 'tone'"):
        library.remove("prod-reviews")
