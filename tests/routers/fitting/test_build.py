"""`fit_task`: an expert without artefacts becomes one that can be routed to."""

import gzip
import json

import pytest
import torch

from experts.backbones.tiny import tiny_encoder
from experts.entries import problems
from experts.errors import UnknownExpert
from experts.library import Library
from experts.manifest import Label, TaskCard
from experts.training.build import train_tasks
from experts.training.data import Task
from experts.training.recipe import Recipe
from routers.fitting.build import fit_task, is_fitted

CARD = TaskCard(
    id="tone", title="Tone", instructions=("Say how loud it is.",),
    labels=(Label(value="loud", statements=("It is loud.",)), Label(value="quiet")),
)  # fmt: skip


@pytest.fixture
def task(tmp_path):
    folder = tmp_path / "tasks" / "tone"
    folder.mkdir(parents=True)
    (folder / "task.json").write_text('{"options": ["loud", "quiet"]}')
    with gzip.open(folder / "train.jsonl.gz", "wt") as out:
        for i in range(16):
            row = {"input": f"text {i}", "options": ["loud", "quiet"], "answer": i % 2}
            out.write(json.dumps(row) + "\n")
    return Task(folder)


@pytest.fixture
def train(task, tmp_path):
    """Train the task's expert, anew if it is there: `train()`."""
    recipe = Recipe(rank=2, epochs=1, min_steps=2)

    def made():
        train_tasks(tiny_encoder(), tmp_path / "library", "tone", [task], {"tone": CARD}, recipe)

    return made


def test_what_was_fitted_and_trained_anew_can_still_be_named(task, train, tmp_path):
    backbone, root = tiny_encoder(), tmp_path / "library"
    train()
    library = Library.open(root, fingerprint=backbone.fingerprint)
    first = library.get("tone")
    library.set_alias("prod", "tone@1")
    for make in (lambda: fit_task(backbone, backbone, library, task, {"tone": CARD}), train) * 3:
        make()
        library.refresh()
    assert library.get("tone").manifest.version == 7
    kept = [e.manifest.version for e in library.snapshot.versions("tone")]
    assert kept == [1, 4, 5, 6, 7], "the last three former ones, and the one an alias pins"
    assert library.find("prod").manifest.files == first.manifest.files
    assert problems(library.find("prod")) == []


def test_an_expert_that_was_replaced_while_it_was_fitted_stays(task, train, tmp_path):
    """Else it would have the weights of one version and the artefacts and card of another."""
    backbone, root = tiny_encoder(), tmp_path / "library"
    train()
    library = Library.open(root, fingerprint=backbone.fingerprint)
    train()
    with pytest.raises(UnknownExpert, match="was replaced or removed meanwhile"):
        fit_task(backbone, backbone, library, task, {"tone": CARD})
    library.refresh()
    assert library.get("tone").manifest.version == 2
    assert not is_fitted(library.get("tone"), backbone)


def test_fitting_makes_an_expert_routable_and_leaves_its_weights(task, train, tmp_path):
    backbone, root = tiny_encoder(), tmp_path / "library"
    train()
    library = Library.open(root, fingerprint=backbone.fingerprint)
    before = library.get("tone")
    assert not is_fitted(before, backbone)

    said = CARD.model_copy(update={"title": "How loud", "instructions": ("Tell the volume.",)})
    fit_task(backbone, backbone, library, task, {"tone": said})
    library.refresh()
    entry = library.get("tone")
    assert is_fitted(entry, backbone)
    assert not library.bad
    assert entry.manifest.version == before.manifest.version + 1
    assert entry.manifest.title == "How loud", "the card may have changed since training"
    weights = "adapter_model.safetensors"
    assert entry.manifest.files[weights] == before.manifest.files[weights]
    torch.testing.assert_close(
        entry.read_artefacts().instructions, backbone.embed(said.instructions), rtol=0, atol=1e-3
    )
    assert not is_fitted(entry, tiny_encoder(seed=1)), "another embedder's vectors say nothing"
