"""Beginnings of prompts: the longest one in common, what is worth keeping, and the budget."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.decoding.prefixes import LEAST, Prefixes, common

TOKEN_BYTES = 8 * 2 * 3  # float64, two heads, width three
BASE = list(range(100, 100 + 3 * LEAST))


def kept(count: int) -> list[torch.Tensor]:
    return [torch.zeros(2, count, 3, dtype=torch.float64)]


@given(st.lists(st.integers(0, 2), max_size=8), st.lists(st.integers(0, 2), max_size=8))
def test_what_two_prompts_begin_with_in_common(a: list[int], b: list[int]) -> None:
    n = common(np.array(a, dtype=np.int32), np.array(b, dtype=np.int32))
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


def test_the_second_prompt_that_begins_alike_is_worth_keeping_and_the_third_finds_it() -> None:
    prefixes = Prefixes(1 << 20, TOKEN_BYTES)
    assert prefixes.worth("a", [*BASE, 1, 2]) == 0
    assert prefixes.find("a", [*BASE, 3]) is None
    assert prefixes.worth("a", [*BASE, 3, 4]) == len(BASE)
    prefixes.keep("a", BASE, kept(len(BASE)))
    found = prefixes.find("a", [*BASE, 5, 6])
    assert found is not None
    assert found[1] == len(BASE)
    assert prefixes.worth("a", [*BASE, 5, 6], found[1]) == 0  # it is kept already


def test_other_experts_find_nothing() -> None:
    prefixes = Prefixes(1 << 20, TOKEN_BYTES)
    prefixes.keep("a", BASE, kept(len(BASE)))
    prefixes.worth("a", BASE)
    assert prefixes.find("b", [*BASE, 1]) is None
    assert prefixes.worth("b", [*BASE, 1]) == 0


def test_what_is_kept_covers_its_own_beginnings_and_nothing_longer() -> None:
    prefixes = Prefixes(1 << 20, TOKEN_BYTES)
    prefixes.keep("a", BASE, kept(len(BASE)))
    assert prefixes.covers("a", BASE)
    assert prefixes.covers("a", BASE[:-1])
    assert not prefixes.covers("a", [*BASE, 1])
    assert not prefixes.covers("a", [*BASE[:-1], 1])
    assert not prefixes.covers("b", BASE)


def test_the_last_token_is_always_read_and_a_short_beginning_is_not_worth_it() -> None:
    prefixes = Prefixes(1 << 20, TOKEN_BYTES)
    prefixes.keep("a", BASE, kept(len(BASE)))
    found = prefixes.find("a", BASE)
    assert found is not None
    assert found[1] == len(BASE) - 1
    assert prefixes.find("a", BASE[:LEAST]) is None
    assert prefixes.find("a", [*BASE[: LEAST - 1], 1, 2, 3]) is None


def test_a_longer_beginning_takes_the_place_of_its_own_beginning() -> None:
    prefixes = Prefixes(1 << 20, TOKEN_BYTES)
    prefixes.keep("a", BASE[:LEAST], kept(LEAST))
    prefixes.keep("a", BASE, kept(len(BASE)))
    assert prefixes.nbytes == len(BASE) * TOKEN_BYTES


def test_the_least_used_goes_first() -> None:
    prefixes = Prefixes(2 * LEAST * TOKEN_BYTES, TOKEN_BYTES)
    first, second, third = ([i] * LEAST for i in (1, 2, 3))
    prefixes.keep("a", first, kept(LEAST))
    prefixes.keep("a", second, kept(LEAST))
    assert prefixes.find("a", [*first, 0])
    prefixes.keep("a", third, kept(LEAST))
    assert prefixes.find("a", [*first, 0])
    assert prefixes.find("a", [*third, 0])
    assert prefixes.find("a", [*second, 0]) is None
    assert prefixes.nbytes == 2 * LEAST * TOKEN_BYTES


def test_of_a_beginning_that_is_too_large_as_much_is_worth_it_as_fits() -> None:
    prefixes = Prefixes(2 * LEAST * TOKEN_BYTES, TOKEN_BYTES)
    prefixes.worth("a", BASE)
    assert prefixes.worth("a", BASE) == 2 * LEAST < len(BASE)


def test_without_memory_nothing_is_remembered() -> None:
    prefixes = Prefixes(0, TOKEN_BYTES)
    assert prefixes.worth("a", BASE) == 0
    assert prefixes.worth("a", BASE) == 0
