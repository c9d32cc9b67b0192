"""Former versions of an expert: kept beside it, found by reference, and brought back."""

import shutil
from dataclasses import replace

import pytest
import torch

from experts.artefacts import Artefacts
from experts.errors import CorruptExpert, DuplicateExpert, UnknownExpert
from experts.library import Library
from experts.loader import load_expert
from experts.manifest import Label
from experts.versions import FOLDER, KEPT, link_or_copy, parse_reference


@pytest.fixture
def library(tmp_path, encoder64):
    return Library.open(tmp_path / "library", fingerprint=encoder64.fingerprint, backbone_id="tiny")


@pytest.fixture
def put(library, peft_folder, encoder64, tmp_path):
    """Add or replace `tone` by an adapter of its own rank: `put(4)`."""

    def add(rank, replace=True, into=library):
        folder = peft_folder(f"rank{rank}", target_modules=["query"], r=rank)
        return into.add(folder, "tone", sites=encoder64.sites, roots=(tmp_path,), replace=replace)

    return add


@pytest.fixture
def rank_of(library, encoder64):
    """The rank of what a name stands for, read from disk."""

    def read(name):
        loaded = load_expert(library.find(name), encoder64.sites, dtype=torch.float32)
        return next(iter(loaded.sites.values()))["A"].shape[0]

    return read


@pytest.mark.parametrize(
    ("name", "parsed"),
    [("tone", ("tone", None)), ("tone@12", ("tone", 12)), ("a.b-c@1", ("a.b-c", 1)),
     ("tone@x", ("tone@x", None)), ("tone@1234567890", ("tone@1234567890", None))],
)  # fmt: skip
def test_a_reference_is_an_id_and_perhaps_a_version(name, parsed):
    assert parse_reference(name) == parsed


def test_a_replaced_expert_keeps_its_former_version(library, put, rank_of):
    first, second = put(2), put(4)
    assert (first.manifest.version, second.manifest.version) == (1, 2)
    assert library.get("tone") is second
    assert [rank_of(n) for n in ("tone", "tone@1", "tone@2")] == [4, 2, 4]
    assert [e.manifest.version for e in library.snapshot.versions("tone")] == [1, 2]
    assert library.verify() == {"tone": [], "tone@1": []}
    again = Library.open(library.root, fingerprint=library.fingerprint)
    assert again.snapshot.kept.keys() == {"tone@1"}
    assert not again.bad


def test_nothing_is_replaced_that_was_not_meant_to_be(library, put):
    put(2)
    with pytest.raises(DuplicateExpert):
        put(4, replace=False)
    assert [e.manifest.version for e in library.snapshot.versions("tone")] == [1]


def test_a_replacement_that_cannot_be_served_changes_nothing(library, put, tmp_path, encoder64):
    put(2)
    before, generation = library.get("tone"), library.generation
    broken = tmp_path / "broken"
    shutil.copytree(before.path, broken)
    (broken / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CorruptExpert):
        library.add(broken, "tone", sites=encoder64.sites, roots=(tmp_path,), replace=True)
    assert (library.get("tone"), library.generation) == (before, generation)
    assert library.verify() == {"tone": []}
    assert not (library.root / FOLDER).exists()


def test_rolling_back_names_the_same_tensors_and_can_be_rolled_back(library, put, rank_of):
    put(2)
    put(4)
    assert library.roll_back("tone", 1).manifest.version == 1
    assert [rank_of(n) for n in ("tone", "tone@1", "tone@2")] == [2, 2, 4]
    assert library.roll_back("tone", 2).manifest.version == 2
    assert rank_of("tone") == 4
    assert put(3).manifest.version == 3  # never a number that was used
    with pytest.raises(UnknownExpert, match="there are: 1, 2, 3"):
        library.roll_back("tone", 9)
    with pytest.raises(UnknownExpert):
        library.roll_back("nobody", 1)


def test_what_is_written_after_a_roll_back_takes_no_name_that_was_used(library, put, rank_of):
    """`fit` and `train` write beside the library; `tone@2` must stay what it was."""
    put(2)
    put(4)
    library.roll_back("tone", 1)
    beside = Library.open(library.root)
    assert beside.refit(beside.get("tone"), Artefacts("e")).manifest.version == 3
    library.refresh()
    assert [e.manifest.version for e in library.snapshot.versions("tone")] == [1, 2, 3]
    assert [rank_of(n) for n in ("tone@2", "tone@3")] == [4, 2]


def test_a_damaged_version_is_not_kept_and_its_name_is_not_used_again(library, put):
    put(2)
    weights = put(4).path / "adapter_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    library.set_aside(library.get("tone"), "It would not load.")
    assert put(3).manifest.version == 3
    assert [e.manifest.version for e in library.snapshot.versions("tone")] == [1, 3]
    library.remove("tone")
    assert put(3).manifest.version == 4


def test_what_was_said_of_an_expert_holds_for_its_successor(
    library, peft_folder, encoder64, tmp_path
):
    """A bare adapter, trained again for the same task, brings no words of its own."""
    rows = torch.nn.functional.normalize(torch.randn(3, encoder64.width), dim=-1)
    of_task = Artefacts(encoder64.fingerprint, rows[:1], rows[1:2], rows[2:])
    brought = []

    def put(name, **said):
        def describe(expert, manifest, artefacts):
            brought.append(artefacts)
            return replace(of_task, vectors={"gate": {s: torch.ones(32) for s in expert.sites}})

        folder = peft_folder(name, target_modules=["query"])
        return library.add(
            folder, "tone", sites=encoder64.sites, roots=(tmp_path,), replace=True,
            describe=describe, **said,
        ).manifest  # fmt: skip

    labels = (Label(value="warm"), Label(value="cold"))
    put("first", title="Tone", instructions=("Judge the tone.",), labels=labels, tags=("a",))
    second = put("second", title="Tone, again")
    assert (second.title, second.instructions) == ("Tone, again", ("Judge the tone.",))
    assert (second.labels, second.tags) == (labels, ("a",))
    for kept, given in zip(brought[1].rows(), of_task.rows(), strict=True):
        torch.testing.assert_close(kept, given, atol=1e-3, rtol=0, check_dtype=False)
    assert brought[1].vectors == {}  # they belonged to the weights that are gone


def test_what_another_process_replaced_is_found_when_it_is_read(library, put, rank_of):
    """No expert is set aside because a command line changed it beside the server."""
    entry = put(2)
    put(4, into=Library.open(library.root, fingerprint=library.fingerprint))
    library.set_aside(entry, "Its files are others than were listed.")
    assert not library.bad
    assert [e.manifest.version for e in library.snapshot.versions("tone")] == [1, 2]
    assert [rank_of(n) for n in ("tone", "tone@1")] == [4, 2]


def test_the_oldest_versions_go(library, put):
    for rank in range(1, KEPT + 4):
        put(rank)
    versions = [e.manifest.version for e in library.snapshot.versions("tone")]
    assert versions == list(range(3, KEPT + 4))
    assert {p.name for p in (library.root / FOLDER).iterdir()} == {
        f"tone@{v}" for v in versions[:-1]
    }


def test_removal_takes_the_former_versions_along(library, put):
    put(2)
    put(4)
    library.remove("tone")
    assert library.snapshot.versions("tone") == []
    assert list((library.root / FOLDER).iterdir()) == []
    with pytest.raises(UnknownExpert):
        library.find("tone@1")
    assert put(2).manifest.version == 3


def test_keeping_a_version_costs_no_space(library, put):
    first = put(2)
    inode = (first.path / "adapter_model.safetensors").stat().st_ino
    put(4)
    kept = library.find("tone@1").path / "adapter_model.safetensors"
    assert kept.stat().st_ino == inode


def test_where_links_are_not_possible_files_are_copied(library, put, rank_of, monkeypatch):
    def refuse(*_args, **_given):
        raise OSError("no links here")

    put(2)
    monkeypatch.setattr("os.link", refuse)
    put(4)
    assert rank_of("tone@1") == 2


def test_a_kept_version_that_was_damaged_is_not_offered(library, put):
    put(2)
    put(4)
    (library.find("tone@1").path / "adapter_model.safetensors").write_bytes(b"cut")
    library.refresh()
    assert [e.manifest.version for e in library.snapshot.versions("tone")] == [2]


def test_another_process_sees_the_replacement_and_what_is_kept(library, put):
    other = Library.open(library.root, fingerprint=library.fingerprint)
    put(2)
    put(4)
    other.refresh()
    assert [e.manifest.version for e in other.snapshot.versions("tone")] == [1, 2]
    same = other.find("tone@1")
    other.refresh()
    assert other.find("tone@1") is same


def test_other_artefacts_are_the_next_version_of_the_same_weights(library, put, encoder64):
    put(2)
    first = put(4)
    gates = {"gate": {"encoder.layer.0.attention.self.query": torch.ones(32)}}
    fitted = library.refit(first, Artefacts(encoder64.fingerprint, vectors=gates))
    assert library.get("tone") is fitted
    assert fitted.manifest.version == 3
    weights = "adapter_model.safetensors"
    assert fitted.manifest.files[weights] == first.manifest.files[weights]
    assert (fitted.path / weights).samefile(library.find("tone@2").path / weights), "no copy"
    assert fitted.read_artefacts().vectors.keys() == {"gate"}
    assert library.find("tone@2").read_artefacts().vectors.keys() == set()
    assert library.verify() == {"tone": [], "tone@1": [], "tone@2": []}


def test_a_version_that_was_replaced_or_removed_gets_no_artefacts(library, put, encoder64):
    first, artefacts = put(2), Artefacts(encoder64.fingerprint)
    second = put(4)
    with pytest.raises(UnknownExpert, match="replaced or removed"):
        library.refit(first, artefacts)
    assert library.get("tone") is second
    library.remove("tone")
    with pytest.raises(UnknownExpert, match="replaced or removed"):
        library.refit(second, artefacts)
    assert [p.name for p in library.root.iterdir() if p.name != FOLDER] == []


def test_a_file_is_linked_or_else_copied(tmp_path, monkeypatch):
    source, alias = tmp_path / "source", tmp_path / "alias"
    source.write_bytes(b"tensors")
    alias.symlink_to(source.name)
    (tmp_path / "other").mkdir()
    for named in (source, alias):
        target = tmp_path / "other" / named.name
        link_or_copy(named, target)
        assert target.samefile(source)
        assert not target.is_symlink()
    monkeypatch.setattr("os.link", refuse)
    link_or_copy(alias, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"tensors"
    assert not (tmp_path / "copy").samefile(source)


def refuse(source, target):
    raise OSError("no hard links here")
