"""Six tasks on one word: nothing in the input says which is meant."""

from __future__ import annotations

from benchmarks.generation.tasks.base import Task
from benchmarks.generation.texts import VOWELS, word


def _count_vowels(text: str) -> str:
    return str(sum(letter in VOWELS for letter in text))


def _sort(text: str) -> str:
    return "".join(sorted(text))


def _plural(text: str) -> str:
    if text.endswith(("s", "x", "z", "ch", "sh")):
        return f"{text}es"
    if text.endswith("y") and text[-2] not in VOWELS:
        return f"{text[:-1]}ies"
    return f"{text}s"


def _shift(text: str) -> str:
    return "".join("a" if letter == "z" else chr(ord(letter) + 1) for letter in text)


TASKS = (
    Task(
        id="reverse-word",
        title="A word backwards",
        looks="word",
        instructions=(
            "Write the letters of the word from last to first, requiring care with letter order.",
            "Spell the given word backwards, requiring character-level manipulation.",
            "Turn the word around so that its final letter comes first and its first letter comes "
            "last, requiring reversal of a sequence.",
        ),
        unseen="How does this word read in a mirror, from its end to its beginning?",
        draw=word,
        answer=lambda text: text[::-1],
    ),
    Task(
        id="upper-case",
        title="A word in capitals",
        looks="word",
        instructions=(
            "Write the word in capital letters, requiring knowledge of letter case.",
            "Convert every lower-case letter of the word to upper case, requiring careful copying.",
            "Print the given word in block capitals throughout, requiring typographic "
            "transformation.",
        ),
        unseen="Make this word all caps.",
        draw=word,
        answer=str.upper,
    ),
    Task(
        id="sort-letters",
        title="Letters in alphabetical order",
        looks="word",
        instructions=(
            "Put the letters of the word into alphabetical order, requiring sorting.",
            "Arrange all letters of the given word from a to z and keep those that occur twice, "
            "requiring knowledge of the alphabet.",
            "Rearrange the word's letters so that they follow the order of the alphabet, requiring "
            "comparison of characters.",
        ),
        unseen="Sort these letters alphabetically.",
        draw=word,
        answer=_sort,
    ),
    Task(
        id="count-vowels",
        title="Number of vowels",
        looks="word",
        instructions=(
            "Count the vowels in the word, requiring the ability to tell vowels from consonants.",
            "State as a digit how many of the letters a, e, i, o and u the word contains, "
            "requiring counting.",
            "Determine the number of vowel letters in the given word, requiring letter "
            "classification and counting.",
        ),
        unseen="How many vowels are there?",
        draw=word,
        answer=_count_vowels,
    ),
    Task(
        id="make-plural",
        title="Plural of a noun",
        looks="word",
        instructions=(
            "Form the plural of the noun by the regular rules of English spelling, requiring "
            "knowledge of word endings.",
            "Give the word as it is written when there is more than one of the thing, requiring "
            "English morphology.",
            "Add the ending s, es or ies that the singular noun calls for, requiring knowledge of "
            "plural spelling.",
        ),
        unseen="One of these, two of what?",
        draw=word,
        answer=_plural,
    ),
    Task(
        id="shift-letters",
        title="Caesar cipher by one letter",
        looks="word",
        instructions=(
            "Replace each letter of the word by the next one in the alphabet, requiring "
            "character substitution.",
            "Encrypt the word with a Caesar cipher of shift one, z becoming a, requiring "
            "knowledge of the alphabet.",
            "Move every letter one place forward in the alphabet, requiring systematic encoding.",
        ),
        unseen="Encode this with the simple cipher in which a turns into b and b into c.",
        draw=word,
        answer=_shift,
    ),
)
