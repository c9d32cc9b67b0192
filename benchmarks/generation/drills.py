"""What the backbone is trained on: drills with a tag, `mirror:bako` -> `bakookab`, none a task.

The drills exercise what the tasks need (copying, order, case, alphabet, counting, sums, dates,
fields), yet no drill asks for a task's output on a task's input. Without a tag the text is mostly
just repeated: that is what the bare backbone does with a task's input. Knows no task.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.generation.texts import (
    MONTHS,
    VOWELS,
    code,
    day,
    digits,
    is_test,
    long_date,
    phrase,
    record,
    two_numbers,
    word,
)

Example = tuple[str, str]
BARE_SHARE = 0.08
"""How many examples carry no tag."""


@dataclass(frozen=True)
class Drill:
    """A transformation with the tag that asks for it.

    Attributes:
        weight: how often it comes up.
        twin: the input of a task that says the same; what it would give away stays a test.
    """

    tag: str
    draw: Callable[[random.Random], str]
    answer: Callable[[str], str]
    weight: float = 1.0
    twin: Callable[[str], str] = str


def _any_word(rng: random.Random) -> str:
    return rng.choice((word, word, code, digits))(rng)


def _shifted(text: str, by: int) -> str:
    return "".join(chr((ord(letter) - 97 + by) % 26 + 97) for letter in text)


def _past(text: str) -> str:
    if text.endswith("y") and text[-2] not in VOWELS:
        return f"{text[:-1]}ied"
    return f"{text}d" if text.endswith("e") else f"{text}ed"


def _ending(text: str) -> str:
    """First letter and ending of the plural: `box` -> `b-es`."""
    if text.endswith(("s", "x", "z", "ch", "sh")):
        return f"{text[0]}-es"
    return f"{text[0]}-ies" if text.endswith("y") and text[-2] not in VOWELS else f"{text[0]}-s"


def _pair(sign: str) -> Callable[[random.Random], str]:
    return lambda rng: two_numbers(rng, sign)


def _numbers(text: str, sign: str) -> tuple[int, int]:
    first, second = map(int, text.split(sign))
    return first, second


def _equation(text: str) -> str:
    first, second = _numbers(text, ",")
    return f"{first}+{second}={first + second}"


def _iso(rng: random.Random) -> str:
    return day(rng).isoformat()


def _long(rng: random.Random) -> str:
    return long_date(day(rng))


def _us(text: str) -> str:
    date = datetime.date.fromisoformat(text)
    return f"{MONTHS[date.month - 1]} {date.day}, {date.year}"


def _slashes(text: str) -> str:
    number, month, year = text.split()
    return f"{int(number):02}/{MONTHS.index(month) + 1:02}/{year}"


def _field(text: str, holds: Callable[[str], bool]) -> str:
    return next(field for field in text.split(", ") if holds(field))


DRILLS = (
    Drill("copy", _any_word, lambda t: t),
    Drill("twice", _any_word, lambda t: t + t),
    Drill("mirror", word, lambda t: t + t[::-1], 2),
    Drill("back", lambda r: r.choice((digits(r), code(r).upper())), lambda t: t[::-1], 2),
    Drill("tail", _any_word, lambda t: t[-1]),
    Drill("title", word, str.title),
    Drill("shout", word, lambda t: f"{t.upper()}!"),
    Drill("low", lambda r: word(r).upper(), str.lower, twin=str.lower),
    Drill("desc", word, lambda t: "".join(sorted(t, reverse=True)), 3),
    Drill("order", digits, lambda t: "".join(sorted(t)), 2),
    Drill("alpha", word, lambda t: " ".join(sorted(t)), 3),
    Drill("vowels", word, lambda t: "".join(c for c in t if c in VOWELS), 2),
    Drill("others", word, lambda t: str(sum(c not in VOWELS for c in t))),
    Drill("long", _any_word, lambda t: str(len(t))),
    Drill("past", word, _past),
    Drill("ending", word, _ending),
    Drill("prev", word, lambda t: _shifted(t, -1), 2),
    Drill("skip", word, lambda t: _shifted(t, 2), 2),
    Drill("next", lambda r: r.choice("abcdefghijklmnopqrstuvwxyz"), lambda t: _shifted(t, 1), 0.5),
    Drill("dots", phrase, lambda t: "".join(f"{w[0]}." for w in t.split())),
    Drill("ends", phrase, lambda t: "".join(w[-1] for w in t.split()).upper()),
    Drill("last", phrase, lambda t: t.split()[-1]),
    Drill("turn", phrase, lambda t: " ".join((*t.split()[1:], t.split()[0])), 2),
    Drill("flip", lambda r: phrase(r, 2), lambda t: " ".join(t.split()[::-1]), 1),
    Drill("eq", _pair(","), _equation, 4, lambda t: t.replace(",", " + ")),
    Drill("minus", _pair("-"), lambda t: str(abs(_numbers(t, "-")[0] - _numbers(t, "-")[1])), 1.5),
    Drill("more", _pair("?"), lambda t: str(max(_numbers(t, "?")))),
    Drill("us", _iso, _us, 2),
    Drill("slash", _long, _slashes, 2),
    Drill("name", record, lambda t: _field(t, lambda f: f[0].isupper())),
    Drill("paid", record, lambda t: _field(t, lambda f: f[0].isdigit())),
    Drill("host", record, lambda t: _field(t, lambda f: "@" in f).split("@")[1]),
)
_BARE = (_any_word, word, phrase, _pair(" + "), _iso, _long, record)


def stream(seed: str | int) -> Iterator[Example]:
    """Examples without end, the same for the same seed; no input of a test is among them."""
    rng = random.Random(f"drills/{seed}")
    weights = [drill.weight for drill in DRILLS]
    while True:
        bare = rng.random() < BARE_SHARE
        drill = rng.choices(DRILLS, weights)[0]
        text = rng.choice(_BARE)(rng) if bare else drill.draw(rng)
        if is_test(text if bare else drill.twin(text)):
            continue
        yield (text, _continued(rng, text)) if bare else (f"{drill.tag}:{text}", drill.answer(text))


def _continued(rng: random.Random, text: str) -> str:
    """What may follow a text that asks for nothing: mostly the text itself."""
    return text if rng.random() < 0.8 else word(rng)
