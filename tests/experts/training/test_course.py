"""Corpora made ready for a backbone: losses of steps, and what is remembered of a task."""

import pytest
import torch

from experts.manifest import Label, TaskCard
from experts.training.course import Corpus, Course, course_of
from experts.training.data import Example, TaskFormatError
from experts.training.leaves import Leaves
from experts.training.objective import ChoiceObjective
from experts.training.recipe import Recipe
from experts.training.schedule import Batch
from experts.training.train import _initial

RECIPE = Recipe(rank=2, batch_size=4, epochs=1, min_steps=2, noise=0.1)
SKY = TaskCard(id="sky", title="Sky", labels=(Label(value="sunny"), Label(value="rainy")))
WEATHER = [Example(f"drops {i}", ("sunny", "rainy"), i % 2) for i in range(7)]


@pytest.fixture
def mix(backbone):
    return Leaves(_initial("x", backbone, RECIPE, None)).mix


def test_the_loss_of_a_step_is_the_mean_over_its_examples(backbone, card, examples, mix):
    """Each corpus under its own objective, however many examples of it there are."""
    corpora = [Corpus(examples, card, ("sunny",)), Corpus(WEATHER, SKY, ("loud",))]
    step = (Batch(0, [4, 0, 9]), Batch(1, [2]))
    together = Course(backbone, corpora, RECIPE).loss(step, mix)
    total = 0.0
    for batch, corpus in zip(step, corpora, strict=True):
        asked = [corpus.examples[i] for i in batch.rows]
        objective = ChoiceObjective(
            corpus.examples, corpus.card, corpus.foreign, backbone.embed, RECIPE
        )
        state_BD = backbone.run(backbone.tokenize([e.input for e in asked]), mix(len(asked)))
        total += float(objective.loss(state_BD, asked).detach()) * len(asked)
    assert float(together.detach()) == pytest.approx(total / 4, abs=1e-5)


def test_memory_joins_the_steps_and_adds_none(backbone, card, examples):
    plain = Course(backbone, [Corpus(examples, card)], RECIPE).steps()
    memory = [Corpus(WEATHER, SKY).remembered(0.3, seed=0)]
    steps = Course(backbone, [Corpus(examples, card)], RECIPE, memory).steps()
    assert [step[:1] for step in steps] == plain
    assert all(step[1:] == (Batch(1, [0, 1]),) for step in steps)


def test_what_is_remembered_is_a_share_the_same_each_time_and_at_least_one():
    corpus = Corpus([Example(f"{i}", ("a", "b"), 0) for i in range(250)], SKY, ("loud",))
    kept = corpus.remembered(0.01, seed=3)
    assert len(kept.examples) == 2
    assert set(kept.examples) <= set(corpus.examples)
    assert (kept.card, kept.foreign) == (SKY, ("loud",))
    assert kept.examples == corpus.remembered(0.01, seed=3).examples
    assert kept.examples != corpus.remembered(0.01, seed=4).examples
    assert len(corpus.remembered(0.0001, seed=0).examples) == 1


def test_leaves_are_a_copy_that_takes_gradients(backbone, examples, card):
    expert = _initial("x", backbone, RECIPE, None)
    leaves = Leaves(expert)
    course = Course(backbone, [Corpus(examples, card)], RECIPE)
    course.loss((Batch(0, [0, 1]),), leaves.mix).backward()
    assert any(t.grad is not None and t.grad.abs().max() > 0 for t in leaves.tensors)
    assert not any(t.requires_grad for t in expert.tensors())
    with torch.no_grad():
        leaves.tensors[0].add_(1)
    site, parts = next(iter(expert.sites.items()))
    part = next(iter(parts))
    torch.testing.assert_close(leaves.trained().sites[site][part], parts[part] + 1)


def test_what_is_to_be_written_is_nothing_for_a_backbone_that_chooses(backbone, card):
    corpus = Corpus([Example("1", ("2",), 0)], card)
    with pytest.raises(TaskFormatError, match=r"tone: answers are to be written.*tiny-random"):
        course_of(backbone, [corpus], RECIPE)
    assert course_of(backbone, [Corpus(WEATHER, SKY)], RECIPE)
