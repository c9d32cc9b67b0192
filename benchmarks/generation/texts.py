"""What the made texts are made of: pronounceable words, names, dates, records; and the split.

Every text is drawn from a `random.Random` and from nothing else: no word list is read. Knows no
task.
"""

from __future__ import annotations

import calendar
import datetime
import hashlib
import random

VOWELS = "aeiou"
ONSETS = (*"bcdfghjklmnprstvwz", "ch", "sh", "st", "tr")
CODAS = (*"nrsldxy", "ch", "sh")
MONTHS = tuple(calendar.month_name)[1:]
LARGEST = 60
"""The largest number in a drill's sum or difference."""
TEST_SHARE = 8
"""One input in so many is kept for the tests."""
_FIRST_DAY, _LAST_DAY = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)


def is_test(text: str) -> bool:
    """Whether an input is kept for the tests: its hash says so, in whichever task it turns up."""
    return hashlib.sha256(text.encode()).digest()[0] % TEST_SHARE == 0


def word(rng: random.Random, shortest: int = 3, longest: int = 6) -> str:
    """Syllables in lower case, of `shortest` to `longest` letters: `mutosh`, `vikary`."""
    while True:
        made = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 3)))
        made += rng.choice(CODAS) if rng.random() < 0.6 else ""
        if shortest <= len(made) <= longest:
            return made


def phrase(rng: random.Random, words: int = 3) -> str:
    """Short words with a space between."""
    return " ".join(word(rng, 2, 4) for _ in range(words))


def digits(rng: random.Random, shortest: int = 3, longest: int = 6) -> str:
    """A string of digits that means nothing."""
    return "".join(rng.choices("0123456789", k=rng.randint(shortest, longest)))


def code(rng: random.Random, shortest: int = 3, longest: int = 6) -> str:
    """Lower-case letters and digits in any order: `k4t9x`."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(rng.choices(alphabet, k=rng.randint(shortest, longest)))


def two_numbers(rng: random.Random, sign: str) -> str:
    """Two numbers of at most two digits, `sign` between them."""
    return f"{rng.randint(1, LARGEST)}{sign}{rng.randint(1, LARGEST)}"


def day(rng: random.Random) -> datetime.date:
    """A day of a hundred years."""
    return _FIRST_DAY + datetime.timedelta(rng.randrange((_LAST_DAY - _FIRST_DAY).days + 1))


def long_date(date: datetime.date) -> str:
    """A date as it is written in a letter: `7 March 2024`."""
    return f"{date.day} {MONTHS[date.month - 1]} {date.year}"


def record(rng: random.Random) -> str:
    """Name, e-mail address and amount of someone who never was, in any order."""
    first, last = word(rng, 3, 4), word(rng, 3, 4)
    email = f"{rng.choice((first, last, first[0] + last))}@{word(rng, 3, 4)}.{word(rng, 2, 2)}"
    fields = [f"{first} {last}".title(), email, f"{rng.randint(1, 99)}.{rng.randint(0, 99):02}"]
    rng.shuffle(fields)
    return ", ".join(fields)
