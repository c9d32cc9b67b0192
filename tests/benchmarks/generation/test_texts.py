"""Texts are what they say they are, and the split is by the text alone."""

import datetime
import random
import re

import pytest

from benchmarks.generation import texts

DRAWS = 400


def drawn(make, *args):
    rng = random.Random("texts")
    return [make(rng, *args) for _ in range(DRAWS)]


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (texts.word, r"(?=.*[aeiou])[a-z]{3,6}"),
        (texts.phrase, r"[a-z]{2,4} [a-z]{2,4} [a-z]{2,4}"),
        (texts.digits, r"[0-9]{3,6}"),
        (texts.code, r"[a-z0-9]{3,6}"),
    ],
)
def test_strings_have_their_look_and_hardly_repeat(make, pattern):
    made = drawn(make)
    assert all(re.fullmatch(pattern, text) for text in made)
    assert len(set(made)) > DRAWS / 2


def test_words_are_as_short_and_as_long_as_asked():
    assert {len(w) for w in drawn(texts.word, 2, 4)} == {2, 3, 4}


def test_numbers_stay_in_their_range():
    pairs = [tuple(map(int, text.split(" + "))) for text in drawn(texts.two_numbers, " + ")]
    numbers = {n for pair in pairs for n in pair}
    assert min(numbers) == 1
    assert max(numbers) == texts.LARGEST


def test_a_record_has_a_name_an_address_and_an_amount_in_any_order():
    kinds = {"n": r"[A-Z][a-z]+ [A-Z][a-z]+", "e": r"[a-z]+@[a-z]+\.[a-z]+", "a": r"\d+\.\d\d"}
    orders = set()
    for text in drawn(texts.record):
        order = "".join(
            k for field in text.split(", ") for k, p in kinds.items() if re.fullmatch(p, field)
        )
        assert sorted(order) == sorted(kinds)
        orders.add(order)
    assert len(orders) == 6


def test_days_are_of_a_hundred_years_and_written_as_in_a_letter():
    assert {day.year for day in drawn(texts.day)} <= set(range(1950, 2050))
    assert texts.long_date(datetime.date(2024, 3, 7)) == "7 March 2024"


def test_an_eighth_of_all_texts_is_kept_for_tests():
    kept = [texts.is_test(str(number)) for number in range(4000)]
    assert 0.1 < sum(kept) / len(kept) < 0.15
    assert kept == [texts.is_test(str(number)) for number in range(4000)]
