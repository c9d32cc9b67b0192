"""The twelve tasks: answers by an independent definition, splits, and what tells tasks apart."""

import datetime
import re
import string
from collections import Counter
from itertools import islice, pairwise

import pytest

from benchmarks.generation.tasks import TASKS
from benchmarks.generation.texts import is_test

NEXT = str.maketrans(string.ascii_lowercase, string.ascii_lowercase[1:] + "a")


def plural_is_right(text: str, answer: str) -> bool:
    if re.search(r"(s|x|z|ch|sh)$", text):
        return answer == text + "es"
    if re.search(r"[^aeiou]y$", text):
        return answer == re.sub(r"y$", "ies", text)
    return answer == text + "s"


def swap_is_right(text: str, answer: str) -> bool:
    found = re.fullmatch(r"(\w+) (\w+) (\w+)", text)
    return bool(found) and answer == "{2} {1} {0}".format(*found.groups())


RIGHT = {
    "reverse-word": lambda t, a: list(a) == list(reversed(t)),
    "upper-case": lambda t, a: a.isupper() and a.lower() == t,
    "sort-letters": lambda t, a: Counter(a) == Counter(t) and all(x <= y for x, y in pairwise(a)),
    "count-vowels": lambda t, a: int(a) == len(re.findall("[aeiou]", t)),
    "make-plural": plural_is_right,
    "shift-letters": lambda t, a: a == t.translate(NEXT),
    "acronym": lambda t, a: a == "".join(re.findall(r"\b\w", t)).upper(),
    "swap-words": swap_is_right,
    "add-numbers": lambda t, a: int(a) == sum(int(n) for n in re.findall(r"\d+", t)),
    "date-to-long": lambda t, a: (
        datetime.datetime.strptime(a, "%d %B %Y").strftime("%Y-%m-%d") == t
    ),
    "date-to-iso": lambda t, a: datetime.datetime.strptime(t, "%d %B %Y").strftime("%Y-%m-%d") == a,
    "extract-email": lambda t, a: re.findall(r"\S+@[\w.]+", t) == [a],
}


def test_there_are_twelve_tasks_and_a_definition_of_each():
    assert list(TASKS) == list(RIGHT)
    assert len(TASKS) == 12


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_answers_are_right(task):
    for text, answer in [*islice(task.stream(0), 300), *task.tests(200)]:
        assert RIGHT[task.id](text, answer), (text, answer)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_test_input_is_trained_on_and_all_is_the_same_again(task):
    tests, trained = task.tests(200), list(islice(task.stream(0), 2000))
    assert len({text for text, _ in tests}) == 200
    assert all(is_test(text) for text, _ in tests)
    assert not {text for text, _ in tests} & {text for text, _ in trained}
    assert tests == task.tests(200)
    assert trained == list(islice(task.stream(0), 2000))
    assert trained != list(islice(task.stream(1), 2000))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_instructions_are_single_sentences_of_a_task_alone(task):
    assert len(task.instructions) >= 3
    others = {i for t in TASKS.values() if t is not task for i in (*t.instructions, t.unseen)}
    assert len({*task.instructions, task.unseen} - others) == len(task.instructions) + 1
    for sentence in task.instructions:
        assert re.fullmatch(r"[A-Z][^.]*, requiring [^.]*\.", sentence), sentence


def test_tasks_of_one_look_cannot_be_told_by_their_inputs():
    looks = Counter(task.looks for task in TASKS.values())
    assert looks["word"] == 6
    assert looks["phrase"] == 2
    for look in looks:
        drawn = {task.draw for task in TASKS.values() if task.looks == look}
        assert len(drawn) == 1


def test_tasks_of_one_look_want_different_answers():
    texts = [text for text, _ in TASKS["reverse-word"].tests(200)]
    words = [task for task in TASKS.values() if task.looks == "word"]
    for task in words:
        for other in words:
            same = sum(task.answer(t) == other.answer(t) for t in texts)
            assert task is other or same <= 20, (task.id, other.id)
