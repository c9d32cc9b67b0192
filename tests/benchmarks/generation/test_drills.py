"""The drills: deterministic, free of test inputs, and none of them a task."""

import random
import re
from itertools import islice

import pytest

from benchmarks.generation import drills
from benchmarks.generation.tasks import TASKS
from benchmarks.generation.texts import is_test

LOOKS = {
    "word": r"[a-z]{3,6}",
    "phrase": r"[a-z]{2,4} [a-z]{2,4} [a-z]{2,4}",
    "sum": r"\d+ \+ \d+",
    "iso date": r"\d{4}-\d\d-\d\d",
    "long date": r"\d+ [A-Z][a-z]+ \d{4}",
    "record": r".+, .+, .+",
}
CASES = {
    "twice": ("bako", "bakobako"),
    "mirror": ("bako", "bakookab"),
    "back": ("83104", "40138"),
    "desc": ("bako", "okba"),
    "order": ("83104", "01348"),
    "alpha": ("bako", "a b k o"),
    "vowels": ("bako", "ao"),
    "others": ("bash", "3"),
    "long": ("k4t9x", "5"),
    "past": ("vikry", "vikried"),
    "ending": ("tush", "t-es"),
    "prev": ("bala", "azkz"),
    "skip": ("zab", "bcd"),
    "dots": ("ba ko tim", "b.k.t."),
    "ends": ("ba ko tim", "AOM"),
    "turn": ("ba ko tim", "ko tim ba"),
    "flip": ("ba ko", "ko ba"),
    "eq": ("47,8", "47+8=55"),
    "minus": ("8-47", "39"),
    "more": ("8?47", "47"),
    "us": ("2024-03-07", "March 7, 2024"),
    "slash": ("7 March 2024", "07/03/2024"),
    "name": ("3.07, tim@bako.li, Tim Osh", "Tim Osh"),
    "paid": ("3.07, tim@bako.li, Tim Osh", "3.07"),
    "host": ("3.07, tim@bako.li, Tim Osh", "bako.li"),
}
BY_TAG = {drill.tag: drill for drill in drills.DRILLS}


def test_tags_are_different():
    assert len(BY_TAG) == len(drills.DRILLS)


@pytest.mark.parametrize("tag", CASES)
def test_answers_by_hand(tag):
    text, answer = CASES[tag]
    assert BY_TAG[tag].answer(text) == answer


@pytest.mark.parametrize("drill", drills.DRILLS, ids=lambda drill: drill.tag)
def test_no_drill_is_a_task(drill):
    """Where a drill's input looks like a task's, it asks for something else."""
    rng = random.Random(0)
    drawn = [drill.draw(rng) for _ in range(400)]
    for task in TASKS.values():
        alike = [text for text in drawn if re.fullmatch(LOOKS[task.looks], text)]
        same = sum(drill.answer(text) == task.answer(text) for text in alike)
        assert same <= 0.5 * len(alike), task.id  # `bako` has as many vowels as consonants


def test_the_look_of_each_task_is_what_the_check_above_takes_it_for():
    for task in TASKS.values():
        for text, _ in task.tests(50):
            assert re.fullmatch(LOOKS[task.looks], text)


def test_the_stream_is_the_same_again_and_holds_no_test_input():
    made = list(islice(drills.stream(0), 5000))
    assert made == list(islice(drills.stream(0), 5000))
    for text, _ in made:
        tag, colon, rest = text.partition(":")
        assert not is_test(BY_TAG[tag].twin(rest) if colon else text)
    tests = {text for task in TASKS.values() for text, _ in task.tests(200)}
    assert not tests & {text.partition(":")[2] or text for text, _ in made}


def test_no_sum_of_a_test_is_drilled_in_other_signs():
    sums = {text for text, _ in TASKS["add-numbers"].tests(200)}
    drilled = [t for t, _ in islice(drills.stream(0), 5000) if t.startswith("eq:")]
    assert drilled
    assert not sums & {text[3:].replace(",", " + ") for text in drilled}


def test_what_carries_no_tag_is_mostly_repeated():
    bare = [(t, a) for t, a in islice(drills.stream(0), 5000) if ":" not in t]
    assert 0.05 < len(bare) / 5000 < 0.12
    assert 0.7 < sum(t == a for t, a in bare) / len(bare) < 0.9
