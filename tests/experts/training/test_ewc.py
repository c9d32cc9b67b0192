"""Elastic weight consolidation: the penalty and the Fisher information, each by hand."""

import pytest
import torch

from experts.training.course import Corpus, Course
from experts.training.ewc import Anchor, fisher_of, penalty
from experts.training.leaves import Leaves
from experts.training.recipe import Recipe
from experts.training.schedule import Batch
from experts.training.train import _initial, train_expert

RECIPE = Recipe(rank=2, batch_size=4, epochs=1, min_steps=4, noise=0.1, learning_rate=1e-2)


def one(*values):
    return {"site": {"A": torch.tensor(values)}}


def test_the_penalty_adds_up_over_former_tasks():
    anchors = [
        Anchor(one(1.0, 0.0), fisher=one(2.0, 0.0)),
        Anchor(one(0.0, 0.0), fisher=one(0.5, 1.0)),
    ]
    here = one(3.0, 4.0)
    first, second = 2.0 * 2.0**2, 0.5 * 3.0**2 + 1.0 * 4.0**2
    assert float(penalty(here, anchors, 10.0)) == pytest.approx(10 / 2 * (first + second))
    assert float(penalty(one(1.0, 9.0), anchors[:1], 10.0)) == 0, "what mattered is where it was"


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_the_fisher_information_is_the_mean_of_squared_gradients(backbone, card, examples, kind):
    recipe = RECIPE.model_copy(update={"kind": kind})
    corpus = Corpus(examples, card, ("sunny",))
    expert = train_expert("x", backbone, [corpus], recipe)
    before = {n: t.clone() for n, t in flat(expert.sites).items()}
    fisher = flat(fisher_of(backbone, expert, corpus, recipe, count=1))
    assert fisher.keys() == before.keys()

    leaves = Leaves(expert)
    courses = [Course(backbone, [corpus], recipe) for _ in examples]
    found = [
        torch.autograd.grad(course.loss((Batch(0, [row]),), leaves.mix), leaves.tensors)
        for row, course in enumerate(courses)
    ]
    by_hand = [flat(leaves.shaped([g.square() for g in gradients])) for gradients in found]
    assert any(all(torch.equal(fisher[n], f[n]) for n in fisher) for f in by_hand), "one was drawn"
    assert all(torch.equal(t, before[n]) for n, t in flat(expert.sites).items())


def test_more_examples_than_there_are_is_all_of_them(backbone, card, examples):
    expert = _initial("x", backbone, RECIPE, None)
    told = []
    corpus = Corpus(examples[:5], card)
    fisher = flat(fisher_of(backbone, expert, corpus, RECIPE, 99, lambda *step: told.append(step)))
    assert [(done, total) for done, total, _ in told] == [(i, 5) for i in range(1, 6)]
    assert all((f >= 0).all() for f in fisher.values())
    assert any(f.max() > 0 for f in fisher.values())


def flat(sites):
    return {(site, part): t for site, parts in sites.items() for part, t in parts.items()}
