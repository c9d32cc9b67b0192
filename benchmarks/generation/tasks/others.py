"""Two tasks that share phrases of three words, and four whose inputs have a look of their own."""

from __future__ import annotations

import datetime
import random

from benchmarks.generation.tasks.base import Task
from benchmarks.generation.texts import MONTHS, day, long_date, phrase, record


def _acronym(text: str) -> str:
    return "".join(word[0].upper() for word in text.split())


def _swap(text: str) -> str:
    first, *middle, last = text.split()
    return " ".join((last, *middle, first))


def _sum(rng: random.Random) -> str:
    """A number of two or three digits and one of one: what a small model learns in a minute."""
    return f"{rng.randint(10, 999)} + {rng.randint(1, 9)}"


def _add(text: str) -> str:
    return str(sum(map(int, text.split(" + "))))


def _to_long(text: str) -> str:
    return long_date(datetime.date.fromisoformat(text))


def _to_iso(text: str) -> str:
    number, month, year = text.split()
    return f"{year}-{MONTHS.index(month) + 1:02}-{int(number):02}"


def _email(text: str) -> str:
    return next(field for field in text.split(", ") if "@" in field)


TASKS = (
    Task(
        id="acronym",
        title="Acronym of a phrase",
        looks="phrase",
        instructions=(
            "Build the acronym of the phrase from the first letter of each word in capitals, "
            "requiring abbreviation.",
            "Take the initial letter of every word and write them together in upper case, "
            "requiring attention to word boundaries.",
            "Abbreviate the name to its capital initials without dots, requiring knowledge of how "
            "acronyms are formed.",
        ),
        unseen="What would this be called for short, by its initials?",
        draw=phrase,
        answer=_acronym,
    ),
    Task(
        id="swap-words",
        title="First and last word exchanged",
        looks="phrase",
        instructions=(
            "Exchange the first and the last word of the phrase, requiring care with word order.",
            "Rewrite the phrase with its outer words in each other's place and the middle one left "
            "alone, requiring reordering.",
            "Swap the opening word with the closing word and change nothing else, requiring "
            "manipulation of word positions.",
        ),
        unseen="Let the word at the beginning and the one at the end trade places.",
        draw=phrase,
        answer=_swap,
    ),
    Task(
        id="add-numbers",
        title="Sum of two numbers",
        looks="sum",
        instructions=(
            "Add the two numbers and give their sum, requiring arithmetic.",
            "Work out the total of both whole numbers, requiring addition with carrying.",
            "Calculate the result of the addition, requiring mental arithmetic.",
        ),
        unseen="How much is it altogether?",
        draw=_sum,
        answer=_add,
    ),
    Task(
        id="date-to-long",
        title="ISO date written out",
        looks="iso date",
        instructions=(
            "Rewrite the numeric date as day, name of the month and year, requiring knowledge of "
            "date formats.",
            "Convert the ISO date to the form used in letters, with the month spelled out, "
            "requiring the names of the months.",
            "Express the year-month-day date in words and numbers as an English reader would "
            "write it, requiring format conversion.",
        ),
        unseen="Spell out the month of this date.",
        draw=lambda rng: day(rng).isoformat(),
        answer=_to_long,
    ),
    Task(
        id="date-to-iso",
        title="Written date as ISO date",
        looks="long date",
        instructions=(
            "Rewrite the written date as year, month and day in digits joined by hyphens, "
            "requiring knowledge of ISO 8601.",
            "Convert the date with its month name to a sortable numeric date, requiring format "
            "conversion.",
            "Turn the day, month and year into the machine-readable date with two digits for month "
            "and day, requiring the numbers of the months.",
        ),
        unseen="Give me that as YYYY-MM-DD.",
        draw=lambda rng: long_date(day(rng)),
        answer=_to_iso,
    ),
    Task(
        id="extract-email",
        title="E-mail address of a record",
        looks="record",
        instructions=(
            "Extract the e-mail address from the customer record, requiring information "
            "extraction.",
            "Find the field with the at sign and copy it exactly, requiring pattern recognition.",
            "Read the entry with a name, an amount and an address and return only the electronic "
            "mail address, requiring field identification.",
        ),
        unseen="Where can I write to this person?",
        draw=record,
        answer=_email,
    ),
)
