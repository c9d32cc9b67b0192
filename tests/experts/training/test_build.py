"""From a task folder to an expert in a library, and when there is nothing to do."""

import pytest

from experts.library import Library
from experts.manifest import Label, TaskCard
from experts.training.build import card_of, foreign_labels, is_trained, read_cards, train_task
from experts.training.data import Task
from experts.training.recipe import Recipe

RECIPE = Recipe(rank=2, batch_size=8, epochs=1, min_steps=3)


@pytest.fixture
def task(write_task, examples):
    about = {"definition": "Say it.", "source_repo": "ours", "licence": "CC0", "options": ["loud"]}
    return Task(write_task("tone", examples, **about))


def test_an_expert_is_trained_once_for_each_recipe(task, backbone, card, tmp_path):
    root = tmp_path / "library"
    library = Library.open(root, fingerprint=backbone.fingerprint)
    assert not is_trained(library, task, RECIPE)
    train_task(backbone, root, task, {"tone": card}, RECIPE)
    library.refresh()
    assert is_trained(library, task, RECIPE)
    assert not is_trained(library, task, RECIPE.model_copy(update={"rank": 4}))
    manifest = library.get("tone").manifest
    assert manifest.labels == card.labels
    assert manifest.provenance["examples"] == len(task.train)
    assert (manifest.provenance["source"], manifest.provenance["licence"]) == ("ours", "CC0")
    assert not library.get("tone").read_artefacts().routable, "fitting is another step"


def test_an_expert_of_another_backbone_is_trained_again(task, backbone, card, tmp_path):
    train_task(backbone, tmp_path / "library", task, {"tone": card}, RECIPE)
    other = Library.open(tmp_path / "library", fingerprint="0" * 64)
    assert not is_trained(other, task, RECIPE)


def test_set_aside_examples_are_never_trained_on(task, backbone, card, tmp_path, monkeypatch):
    read: list[str] = []
    tokenize = backbone.tokenize

    def listening(texts, **options):
        read.extend(texts)
        return tokenize(texts, **options)

    monkeypatch.setattr(backbone, "tokenize", listening)
    train_task(backbone, tmp_path / "library", task, {"tone": card}, RECIPE)
    assert task.aside
    assert not {e.input for e in task.aside} & set(read)
    assert {e.input for e in task.train} <= set(read)


def test_a_task_without_a_card_gets_a_bare_one(write_task, card):
    task = Task(write_task("bird_song", [], definition="Name the bird.", options=["wren", "owl"]))
    made = card_of(task, {"tone": card})
    assert made.id == "bird_song"
    assert made.title == "bird song"
    assert made.instructions == ("Name the bird.",)
    assert made.labels == (Label(value="wren"), Label(value="owl"))
    assert card_of(task, {"bird_song": card}) is card


def test_a_task_with_nothing_said_of_it_is_called_by_its_name(write_task):
    made = card_of(Task(write_task("bird_song", [])), {})
    assert made.instructions == ("bird_song",)
    assert made.labels == ()


def test_cards_are_read_by_id_and_a_missing_folder_has_none(tmp_path, card):
    (tmp_path / "some-file.json").write_text(card.model_dump_json())
    assert read_cards(tmp_path) == {"tone": card}
    assert read_cards(tmp_path / "nowhere") == {}


def test_foreign_labels_are_known_wordings_of_the_others(card):
    other = TaskCard(id="sky", title="Sky", labels=(Label(value="sunny"),))
    cards = {"tone": card, "sky": other}
    assert foreign_labels(cards, "sky") == ["loud", "noisy", "quiet"]
    assert foreign_labels(cards, "tone") == ["sunny"]
    assert foreign_labels({"tone": card}, "tone"), "neutral words where there is no other task"
