"""From a task folder to an expert in a library, and when there is nothing to do."""

import gzip
import json

import pytest

from experts.errors import BadExpert
from experts.library import Library
from experts.manifest import Label, TaskCard
from experts.training.build import card_of, foreign_labels, is_trained, read_cards, train_tasks
from experts.training.data import Task, TaskFormatError
from experts.training.past import Past, start_of
from experts.training.recipe import Recipe

RECIPE = Recipe(rank=2, batch_size=8, epochs=1, min_steps=3)


@pytest.fixture
def task(write_task, examples):
    about = {"definition": "Say it.", "source_repo": "ours", "licence": "CC0", "options": ["loud"]}
    return Task(write_task("tone", examples, **about))


def test_an_expert_is_trained_once_for_each_recipe(task, backbone, card, tmp_path):
    root = tmp_path / "library"
    library = Library.open(root, fingerprint=backbone.fingerprint)
    assert not is_trained(library, "tone", [task], RECIPE)
    train_tasks(backbone, root, "tone", [task], {"tone": card}, RECIPE)
    library.refresh()
    assert is_trained(library, "tone", [task], RECIPE)
    assert not is_trained(library, "tone", [task], RECIPE.model_copy(update={"rank": 4}))
    manifest = library.get("tone").manifest
    assert manifest.labels == card.labels
    assert manifest.provenance["examples"] == len(task.train)
    assert (manifest.provenance["source"], manifest.provenance["licence"]) == ("ours", "CC0")
    assert not library.get("tone").read_artefacts().routable, "fitting is another step"


def test_an_expert_is_trained_again_where_its_data_changed(task, backbone, card, tmp_path):
    root = tmp_path / "library"
    train_tasks(backbone, root, "tone", [task], {"tone": card}, RECIPE)
    library = Library.open(root, fingerprint=backbone.fingerprint)
    assert is_trained(library, "tone", [task], RECIPE)
    with gzip.open(task.train_path, "at") as file:
        file.write(gzip.decompress(task.train_path.read_bytes()).decode().splitlines()[0] + "\n")
    assert not is_trained(library, "tone", [task], RECIPE)


def test_an_expert_that_does_not_tell_its_data_is_taken_for_one_of_it(
    task, backbone, card, tmp_path
):
    root = tmp_path / "library"
    entry = train_tasks(backbone, root, "tone", [task], {"tone": card}, RECIPE)
    told = {k: v for k, v in entry.manifest.provenance.items() if k != "data"}
    older = entry.manifest.model_copy(update={"provenance": told})
    (entry.path / "expert.json").write_text(older.model_dump_json())
    library = Library.open(root, fingerprint=backbone.fingerprint)
    assert is_trained(library, "tone", [task], RECIPE)


def test_an_expert_of_another_backbone_is_trained_again(task, backbone, card, tmp_path):
    train_tasks(backbone, tmp_path / "library", "tone", [task], {"tone": card}, RECIPE)
    other = Library.open(tmp_path / "library", fingerprint="0" * 64)
    assert not is_trained(other, "tone", [task], RECIPE)


def test_set_aside_examples_are_never_trained_on(task, backbone, card, tmp_path, monkeypatch):
    read: list[str] = []
    tokenize = backbone.tokenize

    def listening(texts, **options):
        read.extend(texts)
        return tokenize(texts, **options)

    monkeypatch.setattr(backbone, "tokenize", listening)
    train_tasks(backbone, tmp_path / "library", "tone", [task], {"tone": card}, RECIPE)
    assert task.aside
    assert not {e.input for e in task.aside} & set(read)
    assert {e.input for e in task.train} <= set(read)


def test_one_expert_of_several_tasks_says_nothing_that_a_router_could_choose_it_by(
    task, backbone, card, write_task, examples, tmp_path
):
    root = tmp_path / "library"
    two = [task, Task(write_task("noise", examples[:9], source_repo="theirs", licence="MIT"))]
    train_tasks(backbone, root, "both", two, {"tone": card}, RECIPE)
    library = Library.open(root, fingerprint=backbone.fingerprint)
    entry = library.get("both")
    assert entry.manifest.title == "2 tasks together"
    assert (entry.manifest.labels, entry.manifest.instructions) == ((), ())
    assert not entry.read_artefacts().routable
    told = entry.manifest.provenance
    assert (told["tasks"], told["source"], told["licence"]) == (
        "tone, noise", "ours; theirs", "CC0; MIT"
    )  # fmt: skip
    assert told["examples"] == len(two[0].train) + len(two[1].train)
    assert is_trained(library, "both", two, RECIPE)
    assert not is_trained(library, "both", [task], RECIPE), "it is of other tasks"


def test_an_id_that_no_folder_can_have_is_refused_before_training(task, backbone, tmp_path):
    with pytest.raises(BadExpert, match="cannot be an expert's id"):
        train_tasks(backbone, tmp_path / "library", "../all", [task], {}, RECIPE)
    assert not (tmp_path / "library").exists()


def test_an_expert_that_does_not_name_its_tasks_is_its_own_tasks(task, backbone, tmp_path):
    root = tmp_path / "library"
    train_tasks(backbone, root, "tone", [task], {}, RECIPE)
    path = root / "tone" / "expert.json"
    said = json.loads(path.read_text())
    del said["provenance"]["tasks"]
    path.write_text(json.dumps(said))
    assert is_trained(Library.open(root), "tone", [task], RECIPE)


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


def test_an_expert_knows_the_one_it_started_from(
    task, backbone, card, write_task, examples, tmp_path
):
    """And is trained again where that one is no more what it was."""
    root, cards = tmp_path / "library", {"tone": card}
    first = train_tasks(backbone, root, "tone", [task], cards, RECIPE)
    noise = Task(write_task("noise", examples[:9]))
    past = Past(*start_of(first, backbone))
    train_tasks(backbone, root, "noise", [noise], cards, RECIPE, past=past)
    library = Library.open(root, fingerprint=backbone.fingerprint)
    told = library.get("noise").manifest.provenance["start"]
    assert told == f"tone {first.manifest.files['adapter_model.safetensors']}"
    assert is_trained(library, "noise", [noise], RECIPE, past)
    assert not is_trained(library, "noise", [noise], RECIPE)
    other = RECIPE.model_copy(update={"seed": 1})
    changed = train_tasks(backbone, root, "tone", [task], cards, other)
    assert not is_trained(library, "noise", [noise], RECIPE, Past(*start_of(changed, backbone)))


def test_only_so_many_examples_are_learnt_from(task, backbone, card, tmp_path):
    few = RECIPE.model_copy(update={"examples": 3})
    entry = train_tasks(backbone, tmp_path / "library", "tone", [task], {"tone": card}, few)
    assert entry.manifest.provenance["examples"] == 3


def test_a_recipe_of_before_is_the_same_with_the_defaults_of_today(task, backbone, tmp_path):
    root = tmp_path / "library"
    entry = train_tasks(backbone, root, "tone", [task], {}, RECIPE)
    said = json.loads((entry.path / "expert.json").read_text())
    recipe = json.loads(said["provenance"]["recipe"])
    del recipe["examples"]
    said["provenance"]["recipe"] = json.dumps(recipe)
    (entry.path / "expert.json").write_text(json.dumps(said))
    assert is_trained(Library.open(root), "tone", [task], RECIPE)
    assert Recipe.read(json.dumps({**recipe, "colour": "red"})) is None
    assert Recipe.read(None) is None


def test_a_task_may_say_itself_what_a_card_would(write_task):
    about = {"title": "Bird song", "instructions": ["Name the bird.", "Which bird is it?"],
             "instruction_unseen": "Who sings?", "definition": "no longer needed"}  # fmt: skip
    made = card_of(Task(write_task("bird_song", [], **about)), {})
    assert (made.title, made.instruction_unseen) == ("Bird song", "Who sings?")
    assert made.instructions == ("Name the bird.", "Which bird is it?")


def test_what_a_task_says_in_another_form_is_named(write_task):
    task = Task(write_task("bird_song", [], instructions="Name the bird."))
    with pytest.raises(TaskFormatError, match=r"bird_song/task\.json: instructions"):
        card_of(task, {})
