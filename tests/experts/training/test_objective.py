"""The training objective: what a step may hide, offer and say."""

import pytest
import torch
from torch.nn import functional as F

from experts.manifest import Label, TaskCard
from experts.training.data import Example
from experts.training.objective import ChoiceObjective
from experts.training.recipe import Recipe

PLAIN = Recipe(noise=0.0, foreign=2)
THREE = ("red", "green", "blue")
FOREIGN = ("sunny", "rainy")


@pytest.fixture
def objective(backbone):
    """`objective(examples)`: of a task whose labels are said in one way each."""

    def make(examples, card=None, foreign=FOREIGN, recipe=PLAIN):
        card = card or TaskCard(id="task", title="Task")
        return ChoiceObjective(examples, card, foreign, backbone.embed, recipe)

    return make


def hidden(objective, examples, times=60):
    """What that many steps hide: (times, B, C)."""
    width = max(len(e.options) for e in examples) + objective.recipe.foreign
    shape = torch.Size([len(examples), width])
    return torch.stack([objective._hidden(examples, shape) for _ in range(times)])


def test_the_answer_is_never_hidden_and_each_wrong_choice_sometimes_is(objective):
    examples = [Example(f"{i}", THREE, i) for i in range(3)]
    hidden_SBC = hidden(objective(examples), examples)
    for b in range(3):
        assert not hidden_SBC[:, b, b].any()
        for c in {0, 1, 2, 3, 4} - {b}:
            assert 0 < hidden_SBC[:, b, c].float().mean() < 1


def test_two_options_are_both_kept(objective):
    examples = [Example("a", ("yes", "no"), 0), Example("b", THREE, 1)]
    hidden_SBC = hidden(objective(examples), examples)
    assert not hidden_SBC[:, 0, :2].any()
    assert hidden_SBC[:, 0, 2].all(), "the padding is no choice"
    assert hidden_SBC[:, 1, 0].any()


def test_every_example_has_its_own_options(objective, backbone):
    """The answer's column holds the answer's own text, however many options others have."""
    examples = [Example("a", ("oak", "elm"), 1), Example("b", ("salt", "sugar", "flour"), 2)]
    drawn_BCD = objective(examples)._draw(examples)
    assert drawn_BCD.shape == (2, 5, backbone.width)
    torch.testing.assert_close(drawn_BCD[0, :2], backbone.embed(["oak", "elm"]))
    torch.testing.assert_close(drawn_BCD[1, :3], backbone.embed(["salt", "sugar", "flour"]))


def test_foreign_choices_are_other_labels(objective, backbone):
    examples = [Example("a", THREE, 0)]
    drawn_BCD = objective(examples, foreign=("sunny",))._draw(examples)
    torch.testing.assert_close(drawn_BCD[0, 3:], backbone.embed(["sunny", "sunny"]))


def test_a_foreign_label_that_is_ours_too_is_never_a_wrong_choice(objective, backbone):
    examples = [Example("a", THREE, 0)]
    drawn_BCD = objective(examples, foreign=("red", "sunny"))._draw(examples)
    torch.testing.assert_close(drawn_BCD[0, 3:], backbone.embed(["sunny", "sunny"]))
    alone = objective(examples, foreign=("red",))
    assert alone._draw(examples).shape[1] == 3


def test_loss_is_least_where_the_state_is_the_answer(objective, backbone):
    examples = [Example("a", THREE, 2)] * 8
    choice_CD = backbone.embed(THREE)
    losses = [
        float(objective(examples).loss(choice_CD[i].expand(8, -1), examples)) for i in range(3)
    ]
    assert losses[2] == min(losses)
    assert losses[2] < 0.5 * min(losses[:2])


def test_wordings_and_statements_are_drawn_and_unseen_ones_never(card, examples, backbone):
    asked: list[str] = []

    def listening(texts):
        asked.extend(texts)
        return backbone.embed(texts)

    objective = ChoiceObjective(examples, card, FOREIGN, listening, Recipe(statement_share=0.5))
    names = {i: text for text, i in objective._texts.items()}
    drawn = {names[i] for _ in range(40) for i in objective._row(examples[0], 2)[:2]}
    assert drawn == {"loud", "noisy", "It is loud.", "quiet", "It is quiet."}
    assert not {"deafening", "What a din.", "It is not loud."} & set(asked)


def test_a_label_the_card_does_not_know_is_said_as_it_is(objective, backbone):
    card = TaskCard(id="task", title="Task", labels=(Label(value="red"),))
    examples = [Example("a", ("red", "mauve"), 1)]
    drawn_BCD = objective(examples, card=card)._draw(examples)
    torch.testing.assert_close(drawn_BCD[0, :2], backbone.embed(["red", "mauve"]))


def test_noise_moves_choices_by_about_its_norm(objective):
    examples = [Example("a", THREE, 0)] * 64
    still_BCD = objective(examples, foreign=())._draw(examples)
    noisy_BCD = objective(examples, foreign=(), recipe=Recipe(noise=0.5))._draw(examples)
    cosine_BC = F.cosine_similarity(still_BCD, noisy_BCD, dim=-1)
    assert float(cosine_BC.mean()) == pytest.approx(1 / (1 + 0.5**2) ** 0.5, abs=0.02)


def test_the_seed_decides_every_draw(card, examples, backbone):
    state_BD = backbone.embed([e.input for e in examples])

    def losses(seed):
        objective = ChoiceObjective(examples, card, FOREIGN, backbone.embed, Recipe(seed=seed))
        return [float(objective.loss(state_BD, examples)) for _ in range(3)]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)
    assert len(set(losses(1))) == 3
