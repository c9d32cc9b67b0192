"""How an example is put, and what a card must have for it."""

import pytest

from benchmarks.quality.conditions import CONDITIONS, SEEN, UNSEEN, ask, lacks, paraphrases
from benchmarks.quality.measure import sample_of
from benchmarks.quality.rows import Routed
from experts.manifest import Label, TaskCard, Wording
from experts.training.data import Example

CARD = TaskCard(
    id="weather", title="Weather", instructions=("One.", "Two.", "Three."),
    instruction_unseen="Never seen.",
    labels=(Label(value="sunny", unseen=Wording(value="radiant")),
            Label(value="rainy", unseen=Wording(value="pouring"))),
)  # fmt: skip
EXAMPLES = [Example(f"Day {i}.", ("sunny", "rainy"), i % 2) for i in range(7)]


def asked(condition, card=CARD):
    return ask("weather", EXAMPLES, card, condition, ["happy", "sad"])


def test_paraphrases_take_turns_and_the_third_is_unseen():
    found = asked("instruction")
    assert [a.paraphrase for a in found] == [0, 1, 2, 0, 1, 2, 0]
    assert [a.asked.instruction for a in found[:3]] == ["One.", "Two.", "Never seen."]
    assert paraphrases(CARD)[UNSEEN] == "Never seen."


@pytest.mark.parametrize("condition", ["input", "choices", "reworded"])
def test_only_one_condition_has_a_sentence(condition):
    assert {(a.asked.instruction, a.paraphrase) for a in asked(condition)} == {("", None)}


def test_reworded_has_unseen_words_shuffled_and_a_foreign_one():
    found = asked("reworded")
    for example, a in zip(EXAMPLES, found, strict=True):
        texts = [c.text for c in a.asked.choices]
        assert len(texts) == 3
        assert {"radiant", "pouring"} < set(texts)
        assert (
            texts[a.asked.answer]
            == {"sunny": "radiant", "rainy": "pouring"}[example.options[example.answer]]
        )
    assert found == asked("reworded"), "the same in every run"


def test_a_card_that_lacks_words_is_told_of():
    bare = CARD.model_copy(update={"instruction_unseen": None, "labels": CARD.labels[:1]})
    labels = ("sunny", "rainy")
    assert [lacks(CARD, c, labels) for c in CONDITIONS] == [None] * 4
    assert lacks(bare, "instruction", labels)
    assert "rainy" in lacks(bare, "reworded", labels)
    assert lacks(None, "instruction", None)
    assert lacks(None, "reworded", None) is None, "choices of a question's own need no wording"
    assert lacks(None, "choices", labels) is None


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_routed_sample_says_nothing_of_its_task(condition):
    one = sample_of(asked(condition)[0], Routed("dam"))
    assert one.model == "auto"
    assert one.options.sees == SEEN[condition]
    assert one.question.choices, "the answer head always has the choices"
