"""`fit_task`: an expert without artefacts becomes one that can be routed to."""

import gzip
import json

import pytest
import torch

from experts.backbones.tiny import tiny_encoder
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


def test_fitting_makes_an_expert_routable_and_leaves_its_weights(task, tmp_path):
    backbone, root = tiny_encoder(), tmp_path / "library"
    recipe = Recipe(rank=2, epochs=1, min_steps=2)
    train_tasks(backbone, root, "tone", [task], {"tone": CARD}, recipe)
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
