"""Language models learn to write the answer; their gates are fitted by the same loss."""

from __future__ import annotations

import pytest
import torch

from experts.backbones.tiny import tiny_causal, tiny_seq2seq
from experts.decoding.likelihood import Ranked
from experts.manifest import TaskCard
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.training.course import Corpus, course_of
from experts.training.data import Example
from experts.training.recipe import Recipe
from experts.training.schedule import Batch
from experts.training.train import train_expert
from routers.fitting.gates import fit_gates

EXAMPLES = [Example(f"{a}", (str(a + 1),), 0) for a in range(8)]
CARD = TaskCard(id="next", title="next", instructions=("Say the next number.",))
RECIPE = Recipe(rank=8, batch_size=8, min_steps=120, epochs=1, learning_rate=1e-2)


@pytest.fixture(params=[tiny_causal, tiny_seq2seq], ids=["causal", "seq2seq"], scope="module")
def backbone(request):
    return request.param()


@pytest.fixture(scope="module")
def learnt(backbone):
    return train_expert("next", backbone, [Corpus(EXAMPLES, CARD)], RECIPE)


def likelihood(backbone, expert) -> float:
    mix = None
    if expert is not None:
        mix = build_mix([RowMix.of({"next": 1.0})] * len(EXAMPLES), [stack_experts([expert])])
    asked = []
    for example in EXAMPLES:
        text, answer = backbone.choice_tokens(example.input, example.options[0])
        asked.append(Ranked(text, [answer]))
    with torch.inference_mode():
        return float(torch.cat(backbone.rank(asked, mix)).mean())


def test_the_loss_is_the_answers_cross_entropy_with_its_end(backbone):
    course = course_of(backbone, [Corpus(EXAMPLES[:3], CARD)], RECIPE)
    with torch.no_grad():
        loss = course.loss((Batch(0, [0, 1, 2]),), lambda _: None)
    expected = []
    for example in EXAMPLES[:3]:
        text, answer = backbone.choice_tokens(example.input, example.options[0])
        ids = answer if answer[-1] in backbone.eos else [*answer, *backbone.eos]
        with torch.inference_mode():
            expected.append(-float(backbone.rank([Ranked(text, [ids])])[0]))
    assert float(loss) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_an_expert_learns_to_write_its_answers(backbone, learnt):
    assert likelihood(backbone, learnt) > -0.1 > -2 > likelihood(backbone, None)


def test_gates_open_for_what_the_expert_is_for(backbone, learnt):
    gates = fit_gates(backbone, learnt, EXAMPLES, CARD, [], RECIPE)
    assert set(gates) == set(learnt.sites)
    assert all(gate.isfinite().all() for gate in gates.values())
    assert sum(bool(gate.abs().max() > 0) for gate in gates.values()) > len(gates) / 2
