"""The library that is shipped, made small: what is written, and what of it can be rebuilt."""

import json

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.generation import ship
from benchmarks.generation.learning import Course
from benchmarks.generation.routed import measure, table
from benchmarks.generation.ship import BACKBONE, inputs_of, write_library, write_tasks
from benchmarks.generation.tasks import TASKS
from benchmarks.generation.texts import is_test
from benchmarks.generation.train import make
from experts.library import Library
from experts.training.build import card_of
from experts.training.data import read_tasks
from server.build import build_engine
from server.settings import Settings

IDS = ("count-vowels", "acronym")
COURSE = Course(steps=4, batch=4, rate=1e-2, warmup=2, precision="float32")


@pytest.fixture(scope="module")
def few():
    """Two tasks in place of twelve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ship, "TASKS", {id: TASKS[id] for id in IDS})
        patch.setattr("benchmarks.generation.routed.TASKS", {id: TASKS[id] for id in IDS})
        yield


@pytest.fixture(scope="module")
def shipped(few, tiny, tmp_path_factory):
    """A library of a tiny backbone with two experts that learnt nothing, and where it came from."""
    trained, root = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("shipped")
    make("causal", trained, size=tiny, course=COURSE, expert_course=COURSE, ids=IDS, tests=4)
    (root / "sailplane.toml").write_text("port = 1\n")
    (root / "former").mkdir()
    (root / "calibration.json").write_text("of another library")
    write_library(trained, root)
    return trained, root


def test_what_is_trained_is_there_in_half_precision(shipped):
    trained, root = shipped
    library = Library.open(root)
    assert set(library.entries) == set(IDS)
    assert library.calibration is None
    for name in ("", *(f"{id}/" for id in IDS)):
        where = f"adapters/{name}adapter_model" if name else "backbone/model"
        whole = load_file(trained / f"{where}.safetensors")
        file = f"{name}adapter_model" if name else f"{BACKBONE}/model"
        half = load_file(root / f"{file}.safetensors")
        assert whole.keys() == half.keys()
        for tensor, expected in ((half[key], whole[key]) for key in whole):
            torch.testing.assert_close(tensor, expected.half(), rtol=0, atol=0)


def test_what_lay_there_before_is_gone_but_for_settings(shipped):
    _, root = shipped
    left = {path.name for path in root.iterdir() if not path.name.startswith(".")}
    assert left == {"sailplane.toml", BACKBONE, *IDS}


def test_an_expert_tells_its_words_source_and_licence(shipped):
    _, root = shipped
    manifest = Library.open(root).get("acronym").manifest
    assert manifest.title == "Acronym of a phrase"
    assert manifest.instructions[0] == "What is the acronym?"
    assert manifest.instruction_unseen == "Write down the initials."
    assert manifest.provenance["licence"] == "Apache-2.0"
    assert json.loads(manifest.provenance["recipe"])["rank"] == 8
    assert manifest.backbone.id == BACKBONE


def test_tasks_are_folders_that_sailplane_reads(few, tmp_path):
    write_tasks(tmp_path, train=40, test=7)
    for task in read_tasks(tmp_path):
        made = TASKS[task.name]
        assert task.writes
        assert len(task.train) + len(task.aside) == 40
        assert [(e.input, e.right) for e in task.test] == made.tests(7)
        for example in (*task.train, *task.aside):
            assert not is_test(example.input)
            assert example.right == made.answer(example.input)
        card = card_of(task, {})
        assert (card.title, len(card.instructions)) == (made.title, 7)


def test_tasks_that_look_alike_read_the_same(few):
    word, other, phrase = (TASKS[id] for id in ("sort-letters", "count-vowels", "swap-words"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ship, "TASKS", TASKS)
        assert inputs_of(word, 20) == inputs_of(other, 20) != inputs_of(phrase, 20)
        assert len({*inputs_of(word, 300)}) == 300


def test_it_is_measured_by_what_requests_say(shipped):
    _, root = shipped
    engine = build_engine(Settings(backbone=str(root / BACKBONE), library=root, threads=1))
    found = measure(engine, 3)
    assert set(found) == {"bare", "known", "unseen", "new", "input alone"}
    assert all(0 <= share <= 1 for row in found.values() for share in row.values())
    assert table(found).row_count == len(IDS) + 1


def test_nothing_is_shipped_where_nothing_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ship", "--trained", str(tmp_path), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        ship.main()
    assert ended.value.code == 1
    assert "nothing is trained" in capsys.readouterr().err
