"""The search of LoraHub on the tiny backbone: what it minimises, finds, and makes an expert of."""

import random

import pytest
import torch
from torch.nn import functional as F

from benchmarks.quality.lorahub import BUDGET, PENALTY, FewShot, few_shot, search
from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.errors import MixError
from experts.kinds import KINDS
from experts.training.data import Example
from experts.weights import ExpertWeights

WORDS = ("red", "green", "blue", "grey", "white", "black")


@pytest.fixture(scope="module")
def backbone() -> TextEncoder:
    return tiny_encoder()


@pytest.fixture(scope="module")
def experts(backbone):
    return [expert(backbone, f"e{i}") for i in range(6)]


def expert(backbone, id, rank=2):
    lora = KINDS["lora"]
    generator = torch.Generator().manual_seed(sum(map(ord, id)))
    fresh = lora.initial(lora.target_sites(backbone.sites.values()), rank=rank, generator=generator)
    sites = {
        site: {part: torch.randn(t.shape, generator=generator) * 0.3 for part, t in parts.items()}
        for site, parts in fresh.items()
    }
    return ExpertWeights(id, "lora", lora.group(sites), sites)


def examples(count=5):
    """Questions that bring choices of their own, of different number."""
    rng = random.Random(3)
    made = []
    for i in range(count):
        options = tuple(rng.sample(WORDS, 2 + i % 3))
        made.append(Example(f"The {rng.choice(WORDS)} one, number {i}.", options, i % 2))
    return made


def test_the_loss_is_the_cross_entropy_of_the_served_answer(backbone, experts):
    weights = [0.5, -0.4, 0.0, 0.3, 1.0, -1.5]
    changed = tiny_encoder()
    with torch.no_grad():
        for site in experts[0].sites:
            A, B = (sum(w * e.sites[site][part] for e, w in zip(experts, weights, strict=True))
                    for part in ("A", "B"))  # fmt: skip
            changed.model.get_submodule(site).weight += (A.T @ B).T
    expected = 0.0
    for e in examples():
        logits = changed.embed([e.input]) @ backbone.embed(e.options).T / 0.05
        expected += float(F.cross_entropy(logits, torch.tensor([e.answer]))) / 5
    task = FewShot(backbone, experts, examples())
    assert task.loss(torch.tensor(weights).numpy()) == pytest.approx(expected, abs=1e-3)


def test_a_search_lowers_what_it_minimises_and_repeats_itself(backbone, experts, monkeypatch):
    asked = []
    loss = FewShot.loss
    monkeypatch.setattr(FewShot, "loss", lambda self, w: asked.append(w.copy()) or loss(self, w))
    found = search(backbone, experts, examples(), seed=1)
    searched, (zero, last) = asked[:-2], asked[-2:]
    assert len(searched) == BUDGET
    assert not searched[0].any()
    assert not zero.any()
    assert all(abs(w).max() <= 1.5 for w in searched)
    assert list(found.weights.values()) == last.tolist()
    penalty = PENALTY * sum(map(abs, found.weights.values())) / len(experts)
    assert found.loss_after + penalty < found.loss_before
    assert set(found.weights) == {e.id for e in experts}
    assert search(backbone, experts, examples(), seed=1) == found


def test_what_was_found_is_an_expert_that_answers_as_the_search_did(backbone, experts):
    found = search(backbone, experts, examples(), seed=1, budget=12)
    made = found.merged(experts, "hub").expert
    again = FewShot(backbone, [made], examples())
    assert again.loss(torch.ones(1).numpy()) == pytest.approx(found.loss_after, abs=1e-5)
    assert made.id == "hub"


def test_of_many_experts_some_are_drawn_by_the_seed(backbone, experts):
    drawn = [
        search(backbone, experts, examples(2), seed, budget=2, most_experts=3) for seed in (1, 1, 2)
    ]
    assert [len(d.weights) for d in drawn] == [3, 3, 3]
    assert set(drawn[0].weights) == set(drawn[1].weights) != set(drawn[2].weights)
    assert drawn[0].merged(experts, "hub").expert.sites


def test_experts_of_different_ranks_are_refused(backbone, experts):
    with pytest.raises(MixError, match="equal ranks"):
        search(backbone, [*experts, expert(backbone, "odd", rank=3)], examples(), seed=0)


def test_the_few_examples_follow_the_seed():
    many = examples(30)
    assert few_shot(many, 1) == few_shot(many, 1) != few_shot(many, 2)
    assert len({e.input for e in few_shot(many, 1)}) == 5
    assert len(few_shot(many[:3], 0)) == 3
