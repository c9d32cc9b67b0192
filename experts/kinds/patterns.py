"""Regular expressions from a stranger's config: which of them may be run at all.

Python's matcher backtracks: it may try every way to share a name among the parts of a pattern,
and for some patterns those are more than anyone can wait for. They are counted on the parsed
pattern, before anything is matched. Knows nothing of what a pattern is for.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from typing import Any

from experts.errors import UnsupportedExpert

MAX_CHARACTERS = 2**15  # of a field's patterns together: room for a name per site of any backbone
MAX_WAYS = 2**19  # of a field's patterns together, for one name: seconds at worst, for all sites
ONE_WAY = ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT")

_parser: Any = importlib.import_module("re._parser")


def require_quick(field: str, patterns: Iterable[str], names: Iterable[str]) -> None:
    """Refuse patterns that could take too long to match against any of `names`.

    Raises:
        UnsupportedExpert: they are too long, ambiguous beyond reason, or no regular expressions.
    """
    patterns = list(patterns)
    if sum(map(len, patterns)) > MAX_CHARACTERS:
        raise UnsupportedExpert(f"{field} has more than {MAX_CHARACTERS} characters.")
    longest = max(map(len, names), default=0)
    left = MAX_WAYS
    for pattern in patterns:
        left -= _ways_of(field, pattern, longest)
        if left < 0:
            raise UnsupportedExpert(
                f"{field} could take too long to match, at {_short(pattern)}: "
                "write it with fewer repetitions, and none inside another."
            )


def _ways_of(field: str, pattern: str, longest: int) -> int:
    try:
        return _ways(_parser.parse(pattern), longest)
    except (re.error, RecursionError, OverflowError) as error:
        reason = f"{field} is no regular expression at {_short(pattern)}: {error}."
        raise UnsupportedExpert(reason) from error


def _ways(parsed: Any, longest: int) -> int:
    """How many ways a match may try at most, on names of so many characters."""
    ways = 1
    for op, value in parsed:
        ways = min(ways * _ways_of_part(op.name, value, longest), MAX_WAYS + 1)
    return ways


def _ways_of_part(op: str, value: Any, longest: int) -> int:
    if op in ONE_WAY:
        return 1
    if op == "BRANCH":
        return sum(_ways(branch, longest) for branch in value[1])
    if op in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, part = value
        return _ways_of_repeat(least, most, part, longest)
    if op == "SUBPATTERN":
        return _ways(value[-1], longest)
    if op in ("ASSERT", "ASSERT_NOT"):
        return _ways(value[1], longest)
    if op == "ATOMIC_GROUP":
        return _ways(value, longest)
    raise UnsupportedExpert(f"{op.lower()} in a regular expression is not served.")


def _ways_of_repeat(least: int, most: int, part: Any, longest: int) -> int:
    """Any number of turns, each in any of the part's ways."""
    each = _ways(part, longest)
    turns = longest + least if most == _parser.MAXREPEAT else most
    if part.getwidth()[0]:  # a turn that takes no character is not limited by the name
        turns = min(turns, longest)
    ways = total = 1
    for _ in range(turns):
        ways *= each
        total += ways
        if total > MAX_WAYS:
            break
    return total


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 60 else f"{pattern[:60]}...")
