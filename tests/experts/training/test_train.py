"""Training on the tiny backbone: what learns, what must not move, and what is served."""

import pytest
import torch

from experts.backbones.base import fingerprint
from experts.library import Library
from experts.loader import load_expert
from experts.manifest import BackboneRef, Manifest
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.training.recipe import Recipe
from experts.training.train import batches, train_expert
from experts.writing import write_expert

KINDS = ("lora", "bottleneck")
RECIPE = Recipe(rank=4, batch_size=8, epochs=1, min_steps=45, learning_rate=1e-2, noise=0.1)


def states(backbone, expert, texts):
    rows = backbone.tokenize(texts)
    mix = build_mix([RowMix.of({expert.id: 1.0})] * len(rows), [stack_experts([expert])])
    with torch.inference_mode():
        return backbone.run(rows, mix)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_falls_and_the_backbone_stays_as_it_was(backbone, card, examples, kind):
    before, losses = backbone.fingerprint, []
    recipe = RECIPE.model_copy(update={"kind": kind})
    expert = train_expert(
        backbone, examples, card, ("sunny",), recipe, lambda *told: losses.append(told)
    )
    assert [(done, total) for done, total, _ in losses] == [(i, 45) for i in range(1, 46)]
    loss = [value for *_, value in losses]
    assert sum(loss[-10:]) < 0.75 * sum(loss[:10])
    assert fingerprint(backbone.model) == before
    assert not any(p.grad is not None for p in backbone.model.parameters())
    assert not any(t.requires_grad for parts in expert.sites.values() for t in parts.values())

    choice_CD = backbone.embed(["loud", "quiet"])
    state_BD = states(backbone, expert, ["SHOUT again!!!", "hush again..."])
    assert (state_BD @ choice_CD.T).argmax(dim=1).tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_expert_is_served_as_it_was_trained(backbone, card, examples, kind, tmp_path):
    recipe = RECIPE.model_copy(update={"kind": kind, "min_steps": 10})
    expert = train_expert(backbone, examples, card, (), recipe)
    manifest = Manifest(
        **card.model_dump(), kind=kind,
        backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
    )  # fmt: skip
    write_expert(tmp_path, manifest, expert, dtype=torch.float32)
    library = Library.open(tmp_path, fingerprint=backbone.fingerprint)
    assert not library.bad
    loaded = load_expert(
        library.get(card.id), backbone.sites, dtype=backbone.dtype, device=backbone.device
    )
    texts = [e.input for e in examples]
    torch.testing.assert_close(
        states(backbone, loaded, texts), states(backbone, expert, texts), rtol=0, atol=1e-6
    )
    bare = backbone.embed(texts)
    assert (states(backbone, loaded, texts) - bare).abs().max() > 1e-3, "it learnt something"


def test_training_twice_gives_the_same_expert(backbone, card, examples):
    recipe = RECIPE.model_copy(update={"min_steps": 5})
    first, second = (train_expert(backbone, examples, card, (), recipe) for _ in range(2))
    for site, parts in first.sites.items():
        assert all(torch.equal(t, second.sites[site][part]) for part, t in parts.items())


def test_every_epoch_takes_each_example_once():
    recipe = Recipe(batch_size=4, epochs=3, min_steps=1)
    made = batches([5] * 10, recipe)
    assert len(made) == 9
    for start in (0, 3, 6):
        assert sorted(i for batch in made[start : start + 3] for i in batch) == list(range(10))
    assert made == batches([5] * 10, recipe)


def test_small_tasks_repeat_their_epochs():
    made = batches([5] * 10, Recipe(batch_size=4, epochs=3, min_steps=20))
    assert len(made) == 21  # whole epochs of three


def test_batches_hold_inputs_of_like_length():
    lengths = list(range(64))
    made = batches(lengths, Recipe(batch_size=8, epochs=1, min_steps=1))
    assert all(max(batch) - min(batch) == 7 for batch in made)
