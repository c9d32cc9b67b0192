"""What callers say: of every task, and nothing like what is measured with."""

import re
from itertools import combinations

import pytest

from benchmarks.generation.tasks import TASKS
from benchmarks.generation.wordings import NEW, SAID

SAME_WORDS_AT_MOST = 0.5  # words that both sentences have, as a share of the words in either


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.casefold()))


def shared(one: str, other: str) -> float:
    return len(words(one) & words(other)) / len(words(one) | words(other))


def test_every_task_has_as_many_and_a_new_one():
    assert list(SAID) == list(NEW) == list(TASKS)
    assert {len(said) for said in SAID.values()} == {5}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_no_two_are_the_same_and_none_is_nearly_one_that_is_measured_with(task):
    every = [*SAID[task.id], *task.instructions]
    assert all(shared(a, b) < 1 for a, b in combinations(every, 2))
    for measured in (task.unseen, NEW[task.id]):
        assert max(shared(measured, known) for known in every) <= SAME_WORDS_AT_MOST
