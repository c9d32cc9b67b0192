"""The cards that evaluation asks with: complete, valid, and in words that nothing was fitted on."""

import re
from pathlib import Path

import pytest

from experts.manifest import Label, TaskCard, Wording
from experts.training.build import read_cards
from experts.training.data import Task, read_tasks

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
HELD_IN = read_cards(ROOT / "library" / "tasks")
HELD_OUT = read_cards(ROOT / "benchmarks" / "quality" / "cards")
CARDS = {**HELD_IN, **HELD_OUT}
SAME_WORDS_AT_MOST = 0.5  # words that both sentences have, as a share of the words in either
SPLITS = pytest.mark.parametrize(
    ("split", "cards"), [("held_in", HELD_IN), ("held_out", HELD_OUT)], ids=["held_in", "held_out"]
)


def every_card(cards: dict[str, TaskCard]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("card", cards.values(), ids=cards)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def told(card: TaskCard) -> set[str]:
    return {plain(i) for i in (*card.instructions, card.instruction_unseen) if i}


def said(wording: Wording) -> set[str]:
    """A wording as it is sent with its description, and without."""
    return {plain(wording.value), plain(wording.text)}


def known(card: TaskCard) -> set[str]:
    return {text for label in card.labels for w in label.known for text in said(w)}


def unseen(label: Label) -> set[str]:
    assert label.unseen is not None
    return said(label.unseen)


def tasks_of(split: str) -> dict[str, Task]:
    folder = DATA / split
    if not folder.is_dir():
        pytest.skip(f"the full data is not at {folder}")
    return {task.name: task for task in read_tasks(folder)}


@SPLITS
def test_every_task_has_a_card_with_its_labels(split, cards):
    options = {name: task.labels or () for name, task in tasks_of(split).items()}
    assert {
        id: tuple(label.value for label in card.labels) for id, card in cards.items()
    } == options


@SPLITS
def test_no_instruction_is_a_tasks_own_definition(split, cards):
    definitions = {name: str(task.about["definition"]) for name, task in tasks_of(split).items()}
    for card in cards.values():
        assert told(card).isdisjoint(map(plain, definitions.values())), card.id


@SPLITS
def test_what_only_evaluation_asks_is_not_nearly_the_definition(split, cards):
    for name, task in tasks_of(split).items():
        its = words(str(task.about["definition"]))
        asked = cards[name].instructions if split == "held_out" else ()
        for instruction in (*asked, cards[name].instruction_unseen):
            ours = words(instruction)
            assert len(ours & its) <= SAME_WORDS_AT_MOST * len(ours | its), instruction


@pytest.mark.parametrize("folder", ["library/tasks", "benchmarks/quality/cards"])
def test_a_card_stands_in_the_file_of_its_name(folder):
    for path in (ROOT / folder).glob("*.json"):
        assert TaskCard.model_validate_json(path.read_bytes()).id == path.stem


def test_the_held_out_cards_are_there_and_of_no_held_in_task():
    assert len(HELD_OUT) == 12
    assert HELD_IN.keys().isdisjoint(HELD_OUT)


@every_card(HELD_OUT)
def test_a_held_out_task_has_three_instructions_of_its_own(card):
    elsewhere = [told(other) for other in CARDS.values() if other.id != card.id]
    assert len(card.instructions) == 2
    assert card.instruction_unseen
    assert len(told(card)) == 3
    assert told(card).isdisjoint(set().union(*elsewhere))


@every_card(HELD_IN)
def test_the_unseen_instruction_is_no_known_one_of_any_card(card):
    fitted = {plain(i) for other in HELD_IN.values() for i in other.instructions}
    assert card.instruction_unseen
    assert plain(card.instruction_unseen) not in fitted


@every_card(CARDS)
def test_unseen_wordings_tell_a_cards_labels_apart(card):
    wordings = [plain(label.unseen.value) for label in card.labels if label.unseen]
    assert len(set(wordings)) == len(card.labels)


@every_card(CARDS)
def test_no_unseen_wording_is_known_of_any_card(card):
    fitted = set().union(*map(known, CARDS.values()))
    for label in card.labels:
        assert unseen(label).isdisjoint(fitted), label.value


@every_card(HELD_OUT)
def test_a_held_out_labels_rewording_is_no_held_in_one_and_repeats_no_word_of_it(card):
    taken = {text for other in HELD_IN.values() for lb in other.labels for text in unseen(lb)}
    for label in card.labels:
        assert unseen(label).isdisjoint(taken), label.value
        assert words(label.value).isdisjoint(words(label.unseen.value)), label.value


@every_card(HELD_OUT)
def test_nothing_else_of_a_held_out_task_could_be_trained_on(card):
    assert all(label.known == (Wording(value=label.value),) for label in card.labels)
    assert not any(label.statements or label.negations for label in card.labels)
