"""The library: what is in it, what is bad and why, and changes that are whole or not at all."""

from __future__ import annotations

import copy
import os
import shutil
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import peft
import pytest
import torch

from experts.artefacts import Artefacts
from experts.atomic import LOCK, locked
from experts.backbones import TextEncoder
from experts.backbones.text_encoder import Pooling
from experts.backbones.tiny import tiny_encoder
from experts.entries import CONFIG, MANIFEST, ROUTING, WEIGHTS, Entry, problems
from experts.errors import (
    BackboneError,
    BadExpert,
    CorruptExpert,
    DuplicateExpert,
    ForbiddenSource,
    MismatchedExpert,
    UnknownExpert,
    UnsupportedExpert,
)
from experts.library import Library
from experts.loader import load_expert
from experts.manifest import Label
from experts.mix import RowMix, build_mix
from experts.stacks import StackCache
from experts.weights import ExpertWeights
from experts.writing import write_expert, write_scores
from tests.experts.test_atomic import kill_at_random

Stored = Callable[..., Entry]
Open = Callable[[], Library]
Peft = Callable[..., Path]


@pytest.fixture
def add(encoder64: TextEncoder, tmp_path: Path) -> Callable[..., Entry]:
    """Add to a library from the inbox: `add(library, source, id)`."""

    def adder(library: Library, source: Path, id: str | None = None, **said: object) -> Entry:
        roots = [tmp_path / "inbox", tmp_path / "library"]
        return library.add(source, id, sites=encoder64.sites, roots=roots, **said)

    return adder


def outputs(
    encoder: TextEncoder, rows: list[list[int]], weights: ExpertWeights | None
) -> torch.Tensor:
    mix = None
    if weights is not None:
        mix = build_mix([RowMix.of({weights.id: 1.0})] * len(rows), StackCache().get([weights]))
    with torch.inference_mode():
        return encoder.run(rows, mix)


def test_no_folder_and_an_empty_folder_are_empty_libraries(root: Path, open_library: Open) -> None:
    for _ in range(2):
        library = open_library()
        assert (dict(library.entries), dict(library.bad), library.calibration) == ({}, {}, None)
        root.mkdir(exist_ok=True)


def test_what_was_written_is_found(
    stored: Stored, open_library: Open, artefacts: Artefacts, root: Path
) -> None:
    for id in ("tides", "clouds"):
        stored(id)
    (root / "README.md").write_text("Not an expert.")
    (root / "notes").mkdir()
    library = open_library()
    assert list(library.entries) == ["clouds", "tides"]
    assert dict(library.bad) == {}
    entry = library.get("tides")
    assert entry.read_artefacts().routable
    assert entry.read_artefacts().embedder == "embedder-1"
    assert entry.read_artefacts().instructions is not None
    assert torch.allclose(entry.read_artefacts().instructions, artefacts.instructions, atol=1e-3)
    assert set(entry.manifest.files) == {CONFIG, WEIGHTS, ROUTING}
    assert library.verify() == {"clouds": [], "tides": []}


def test_a_written_folder_loads_in_peft(
    stored: Stored, encoder64: TextEncoder, rows: list[list[int]]
) -> None:
    entry = stored("tides", dtype=torch.float64)
    model = peft.PeftModel.from_pretrained(copy.deepcopy(encoder64.model), str(entry.path))
    twin = TextEncoder("twin", model.eval().get_base_model(), encoder64.tokenizer, Pooling(), 128)
    weights = load_expert(entry, encoder64.sites, dtype=torch.float64, device="cpu")
    assert torch.allclose(outputs(twin, rows, None), outputs(encoder64, rows, weights), atol=1e-9)
    assert not torch.allclose(outputs(twin, rows, None), outputs(encoder64, rows, None), atol=1e-3)


def test_a_peft_folder_is_added_and_acts_as_in_peft(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry], encoder64: TextEncoder,
    rows: list[list[int]],
) -> None:  # fmt: skip
    source = peft_folder("colours", rank_pattern={"query": 2})
    library = open_library()
    entry = add(
        library, source, title="Colours", instructions=["Name the colour."],
        labels=[Label(value="red")], tags=["demo"],
    )  # fmt: skip
    assert entry.manifest == open_library().get("colours").manifest
    assert entry.manifest.title == "Colours"
    assert entry.manifest.backbone.fingerprint == encoder64.fingerprint
    assert sorted(p.name for p in entry.path.iterdir()) == [CONFIG, WEIGHTS, MANIFEST]
    assert not entry.read_artefacts().routable
    model = peft.PeftModel.from_pretrained(copy.deepcopy(encoder64.model), str(source))
    twin = TextEncoder("twin", model.eval().get_base_model(), encoder64.tokenizer, Pooling(), 128)
    weights = load_expert(entry, encoder64.sites, dtype=torch.float64, device="cpu")
    assert torch.allclose(outputs(twin, rows, None), outputs(encoder64, rows, weights), atol=1e-9)


def test_our_own_folder_keeps_its_manifest_and_takes_a_new_id(
    stored: Stored, open_library: Open, add: Callable[..., Entry]
) -> None:
    first = stored("tides")
    library = open_library()
    entry = add(library, first.path, "tides-2", tags=["copy"])
    assert entry.manifest.title == first.manifest.title
    assert (entry.id, entry.manifest.tags) == ("tides-2", ("copy",))
    assert entry.manifest.files == first.manifest.files
    assert list(open_library().entries) == ["tides", "tides-2"]


def test_every_state_has_a_generation_of_its_own(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry]
) -> None:
    library = open_library()
    seen = [library.generation]
    before = library.snapshot
    add(library, peft_folder("colours"))
    seen.append(library.generation)
    library.write_calibration({"beta": 0.5})
    seen.append(library.generation)
    library.remove("colours")
    seen.append(library.generation)
    assert len(set(seen)) == 4
    library.refresh()
    assert library.generation == open_library().generation == seen[-1]
    add(library, peft_folder("colours"))
    assert library.generation not in seen  # another version than the one that was removed
    assert dict(before.entries) == {}
    assert open_library().calibration == library.calibration
    assert library.calibration is not None
    assert library.calibration["beta"] == 0.5


def test_refresh_keeps_what_did_not_change(stored: Stored, open_library: Open) -> None:
    stored("tides")
    library = open_library()
    entry, generation = library.get("tides"), library.generation
    stored("clouds")
    found = library.refresh()
    assert library.get("tides") is entry
    assert "clouds" in library.entries
    assert (found.added, found.generation) == (("clouds",), library.generation)
    assert library.generation != generation
    before = library.snapshot
    assert library.refresh().added == ()
    assert library.snapshot is before


def test_removal_frees_the_id_and_the_next_version_is_new(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry], root: Path
) -> None:
    library = open_library()
    assert add(library, peft_folder("colours")).manifest.version == 1
    library.remove("colours")
    assert list(root.iterdir()) == []
    with pytest.raises(UnknownExpert):
        library.remove("colours")
    assert add(library, peft_folder("colours")).manifest.version == 2


def test_of_two_processes_that_add_one_id_one_is_refused(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry], root: Path
) -> None:
    source = peft_folder("colours")
    root.mkdir()
    outcomes: list[object] = []

    def work(library: Library, title: str) -> None:
        try:
            outcomes.append(add(library, source, title=title).manifest)
        except DuplicateExpert as error:
            outcomes.append(error)

    # A library object knows no other's lock, as in another process; only the folder's is shared.
    threads = [threading.Thread(target=work, args=(open_library(), t)) for t in ("One", "Two")]
    with locked(root):
        for thread in threads:
            thread.start()
        time.sleep(0.3)  # both have come as far as they get
    for thread in threads:
        thread.join()
    assert sorted(isinstance(o, DuplicateExpert) for o in outcomes) == [False, True]
    assert open_library().get("colours").manifest in outcomes


def test_removing_what_another_process_removed_is_an_unknown_expert(
    stored: Stored, open_library: Open, peft_folder: Peft, add: Callable[..., Entry]
) -> None:
    stored("tides")
    library, other = open_library(), open_library()
    other.remove("tides")
    with pytest.raises(UnknownExpert, match="Another process"):
        library.remove("tides")
    assert dict(library.entries) == {}
    assert add(library, peft_folder(), "tides").manifest.version == 2


def test_manifests_say_the_merge_group(
    stored: Stored, open_library: Open, peft_folder: Peft, add: Callable[..., Entry]
) -> None:
    written = [stored(kind, kind) for kind in ("lora", "bottleneck")]
    library = open_library()
    groups = [e.manifest.merge_group for e in (*written, add(library, peft_folder("new")))]
    assert groups[::2] == ["lora", "lora"]
    assert groups[1].startswith("bottleneck/4/")
    copied = add(library, written[1].path, "copied")
    assert copied.manifest.merge_group == groups[1]
    assert open_library().get("copied").manifest == copied.manifest


def test_equal_artefacts_are_equal_files(
    stored: Stored, open_library: Open, artefacts: Artefacts
) -> None:
    """So a refit that changed nothing changes no digest."""
    stored("tides")
    library, found = open_library(), set[str]()
    for _ in range(8):
        entry = library.refit(library.get("tides"), artefacts)
        found.add(entry.manifest.files["routing.safetensors"])
    assert len(found) == 1


def test_replacing_an_expert_or_its_artefacts_grows_the_version(
    stored: Stored, open_library: Open, artefacts: Artefacts
) -> None:
    stored("tides")
    assert stored("tides").manifest.version == 2
    library, other = open_library(), Artefacts("embedder-2", centroids=artefacts.centroids)
    entry = library.refit(library.get("tides"), other)
    found = open_library().get("tides")
    assert found.manifest == entry.manifest
    assert found.manifest.version == 3
    assert found.read_artefacts().embedder == "embedder-2"
    assert found.read_artefacts().instructions is None
    assert problems(found) == []


def test_values_that_do_not_fit_the_stored_type_are_not_written(
    root: Path, make_expert: Callable[..., ExpertWeights], manifest_of: Callable
) -> None:
    with pytest.raises(CorruptExpert, match="float16"):
        write_expert(root, manifest_of("big"), make_expert("lora", "big", scale=1e6))
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("unknown", ["tide", "TIDES", "Tidse"])
def test_unknown_ids_name_the_closest(stored: Stored, open_library: Open, unknown: str) -> None:
    stored("tides")
    with pytest.raises(UnknownExpert, match="Did you mean tides") as caught:
        open_library().get(unknown)
    assert caught.value.details == {"closest": ["tides"]}


def test_taken_and_reserved_ids_are_refused(
    stored: Stored, peft_folder: Peft, open_library: Open, add: Callable[..., Entry], root: Path
) -> None:
    stored("tides")
    library = open_library()
    (root / "mine").mkdir()
    for id in ("tides", "auto", "tiny-random", "mine"):
        with pytest.raises(DuplicateExpert):
            add(library, peft_folder(), id)


@pytest.mark.parametrize("id", ["../evil", "/tmp/evil", "..", ".", "a/b", ".tmp", "a\x00b", "a\n"])
def test_ids_cannot_leave_the_library(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry], id: str, tmp_path: Path
) -> None:
    source = peft_folder()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadExpert, match="cannot be an expert's id"):
        add(open_library(), source, id)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UnknownExpert):
        open_library().remove(id)


def test_sources_outside_the_roots_are_forbidden(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry], tmp_path: Path
) -> None:
    inside = peft_folder()
    outside = shutil.copytree(inside, tmp_path / "outside")
    (inside.parent / "link").symlink_to(outside)
    for source in (outside, inside.parent / "link", inside / ".." / ".." / "outside", Path("/etc")):
        with pytest.raises(ForbiddenSource):
            add(open_library(), source)


def test_files_that_are_links_to_elsewhere_are_not_copied(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry], tmp_path: Path, root: Path
) -> None:
    source = peft_folder()
    (source / WEIGHTS).rename(tmp_path / "elsewhere")
    (source / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptExpert, match="leaves its folder"):
        add(open_library(), source)
    assert list(root.iterdir()) == []


def test_adapters_that_cannot_be_served_are_not_added(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry], root: Path
) -> None:
    library = open_library()
    dora = peft_folder("dora", use_dora=True)
    biased = peft_folder("biased", bias="lora_only")
    pickled = peft_folder("pickled")
    (pickled / WEIGHTS).rename(pickled / "adapter_model.bin")
    empty = peft_folder("empty")
    (empty / WEIGHTS).unlink()
    for source, error, reason in (
        (dora, UnsupportedExpert, "use_dora"), (biased, UnsupportedExpert, "bias"),
        (pickled, UnsupportedExpert, "safe_serialization"), (empty, CorruptExpert, WEIGHTS),
    ):  # fmt: skip
        with pytest.raises(error, match=reason):
            add(library, source)
    assert list(root.iterdir()) == []
    assert dict(library.entries) == {}


def test_another_backbones_expert_is_bad_and_cannot_be_added(
    stored: Stored, root: Path, encoder64: TextEncoder, tmp_path: Path
) -> None:
    entry = stored("tides")
    other = tiny_encoder(seed=1)
    library = Library.open(root, fingerprint=other.fingerprint, backbone_id="other")
    assert dict(library.entries) == {}
    assert "trained on backbone 'tiny-random'" in library.bad["tides"]
    fresh = Library.open(tmp_path / "fresh", fingerprint=other.fingerprint)
    with pytest.raises(MismatchedExpert, match="trained on backbone"):
        fresh.add(entry.path, sites=other.sites, roots=[root])
    assert list((tmp_path / "fresh").iterdir()) == []


def test_without_a_backbone_the_library_can_be_read_only(
    stored: Stored, root: Path, peft_folder: Peft, add: Callable[..., Entry]
) -> None:
    stored("tides")
    library = Library.open(root)
    assert list(library.entries) == ["tides"]
    with pytest.raises(BackboneError):
        add(library, peft_folder())


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: _truncate(p / WEIGHTS), WEIGHTS),
        (lambda p: (p / ROUTING).unlink(), ROUTING),
        (lambda p: (p / CONFIG).unlink(), CONFIG),
        (lambda p: (p / MANIFEST).write_text("{}"), MANIFEST),
        (lambda p: (p / MANIFEST).unlink(), "sailplane experts add"),
        (lambda p: (p / WEIGHTS).rename(p / "adapter_model.bin"), "pickled"),
        (lambda p: p.rename(p.with_name("renamed")), "folder's name"),
    ],
)
def test_bad_folders_are_listed_with_the_reason(
    stored: Stored, open_library: Open, damage: Callable[[Path], object], reason: str
) -> None:
    stored("good")
    damage(stored("tides").path)
    library = open_library()
    assert list(library.entries) == ["good"]
    ((name, why),) = library.bad.items()
    assert reason in why
    assert library.verify() == {"good": [], name: [why]}
    with pytest.raises(UnknownExpert, match="cannot be served"):
        library.get(name)
    library.remove(name)
    assert dict(open_library().bad) == {}


@pytest.mark.parametrize("name", [WEIGHTS, ROUTING])
def test_a_changed_byte_is_seen_when_the_file_is_read(
    stored: Stored, open_library: Open, name: str
) -> None:
    _flip(stored("tides").path / name)
    library = open_library()  # reads no weights
    assert list(library.entries) == ["tides"]
    assert name in library.verify()["tides"][0]
    with pytest.raises(CorruptExpert, match=name):
        library.get("tides").read(name)


def test_an_expert_set_aside_stays_bad_until_its_folder_changes(
    stored: Stored, open_library: Open, settled: None
) -> None:
    stored("good")
    stored("tides")
    library = open_library()
    before, generation = library.get("tides"), library.generation
    library.set_aside(before, "It would not load.")
    assert (list(library.entries), dict(library.bad)) == (["good"], {"tides": "It would not load."})
    assert library.generation != generation
    library.refresh()
    with pytest.raises(UnknownExpert, match="would not load"):
        library.get("tides")
    os.utime(before.path / WEIGHTS)
    assert library.refresh().added == ("tides",)
    library.set_aside(library.get("tides"), "It would not load.")
    assert library.refresh(again=True).added == ("tides",)
    assert library.generation == generation
    library.set_aside(before, "Another entry was meant.")  # replaced by the one just read
    assert not library.bad


def test_artefacts_the_manifest_does_not_list_are_bad(
    stored: Stored, open_library: Open, edit_manifest: Callable[..., None]
) -> None:
    entry = stored("tides")
    files = {name: sha for name, sha in entry.manifest.files.items() if name != ROUTING}
    edit_manifest(entry.path, files=files)
    assert ROUTING in open_library().bad["tides"]
    edit_manifest(entry.path, files={**entry.manifest.files, "../x": "0" * 64})
    assert "no file of an expert" in open_library().bad["tides"]


def test_verify_sees_damage_done_since(stored: Stored, open_library: Open) -> None:
    entry = stored("tides")
    library = open_library()
    assert library.get("tides").read_artefacts().routable
    _flip(entry.path / WEIGHTS)
    (entry.path / ROUTING).unlink()
    found = library.verify()["tides"]
    assert len(found) == 2
    assert WEIGHTS in found[0]
    assert ROUTING in found[1]


def test_constants_and_their_tensors_stay_together(root: Path, open_library: Open) -> None:
    library = open_library()
    assert library.calibration_tensors() == {}
    for value in (1.0, 2.0):
        library.write_calibration({"beta": value}, {"map": torch.full((2, 2), value)})
    library.write_calibration({"beta": 3})  # the tensors stay
    assert torch.equal(open_library().calibration_tensors()["map"], torch.full((2, 2), 2.0))
    (tensors,) = root.glob("*.safetensors")
    _flip(tensors)
    with pytest.raises(CorruptExpert, match="is not the file"):
        open_library().calibration_tensors()


def test_scores_are_noted_without_a_new_version(stored: Stored, open_library: Open) -> None:
    write_scores(stored("tides"), {"test": 0.5})
    write_scores(open_library().get("tides"), {"reworded": 0.25})
    entry = open_library().get("tides")
    assert entry.manifest.scores == {"test": 0.5, "reworded": 0.25}
    assert entry.manifest.version == 1
    assert problems(entry) == []


def test_a_damaged_calibration_is_an_error(root: Path, open_library: Open) -> None:
    open_library().write_calibration({"beta": 1})
    (root / "calibration.json").write_text("{")
    with pytest.raises(CorruptExpert, match=r"calibration\.json"):
        open_library()


def test_a_folder_linked_from_elsewhere_is_bad(
    stored: Stored, open_library: Open, root: Path, tmp_path: Path
) -> None:
    stored("tides").path.rename(tmp_path / "away")
    (root / "tides").symlink_to(tmp_path / "away")
    library = open_library()
    assert "leaves the library" in library.bad["tides"]
    library.remove("tides")
    assert (tmp_path / "away" / WEIGHTS).exists()
    assert [p.name for p in root.iterdir()] == [LOCK]


def test_readers_see_whole_states_while_writers_run(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry]
) -> None:
    source = peft_folder("colours")
    library = open_library()
    seen: list[str] = []
    generations: dict[str, set[tuple[str, ...]]] = {}
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            now = library.snapshot
            generations.setdefault(now.generation, set()).add(tuple(now.entries))
            if len(now.entries) not in (0, 1, 2) or len(generations[now.generation]) > 1:
                seen.append(f"{now.generation}: {generations[now.generation]}")

    def write(id: str) -> None:
        for _ in range(4):
            add(library, source, id)
            library.remove(id)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(id,)) for id in ("a", "b")]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert seen == []
    assert library.generation == open_library().generation
    assert dict(open_library().entries) == {}


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_leaves_a_library_that_opens(
    peft_folder: Peft, open_library: Open, add: Callable[..., Entry], root: Path, seed: int
) -> None:
    source = peft_folder("colours")
    add(open_library(), source, "steady")

    def churn(_root: Path, done: Connection) -> None:
        torch.set_num_threads(1)
        library = open_library()
        for turn in range(10**6):
            add(library, source, "busy")
            done.send(turn)
            library.remove("busy")

    kill_at_random(churn, root, seed)
    library = open_library()
    assert dict(library.bad) == {}
    assert set(library.entries) in ({"steady"}, {"steady", "busy"})
    assert all(found == [] for found in library.verify().values())
    assert {p.name for p in root.iterdir()} == {LOCK, *library.entries}


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_while_replacing_leaves_the_expert_as_it_was_before_or_after(
    peft_folder: Peft, open_library: Open, encoder64: TextEncoder, root: Path, seed: int
) -> None:
    sources = [peft_folder(f"rank{r}", target_modules=["query"], r=r) for r in (2, 4)]

    def put(library: Library, turn: int) -> Entry:
        source = sources[turn % 2]
        return library.add(
            source, "busy", sites=encoder64.sites, roots=(source.parent,), replace=True
        )

    put(open_library(), 0)

    def churn(_root: Path, done: Connection) -> None:
        torch.set_num_threads(1)
        library = open_library()
        for turn in range(1, 10**6):
            put(library, turn)
            done.send(turn)
            if turn % 3 == 0:
                library.roll_back("busy", library.snapshot.versions("busy")[0].manifest.version)

    kill_at_random(churn, root, seed)
    library = open_library()
    assert (dict(library.bad), set(library.entries)) == ({}, {"busy"})
    assert all(found == [] for found in library.verify().values())
    for entry in library.snapshot.versions("busy"):
        load_expert(entry, encoder64.sites, dtype=torch.float64)
    assert {p.name for p in root.iterdir()} <= {LOCK, "busy", ".versions"}
    assert not [p.name for p in (root / ".versions").iterdir() if p.name.startswith(".")]
