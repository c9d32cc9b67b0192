"""Rows keep what is theirs while others come and go, within a budget of bytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.decoding.pages import ByteBudget, LayerShape, Pages, capacity_for

SHAPES = (LayerShape(2, 3, 4), LayerShape(1, 2, 2))
TOKEN_BYTES = 8 * (2 * 7 + 1 * 4)


def pages(budget: int = 1 << 30, page_tokens: int = 256) -> Pages:
    return Pages(SHAPES, torch.float64, torch.device("cpu"), ByteBudget(budget), page_tokens)


def fill(held: Pages, slot, mark: float, count: int) -> None:
    for tensor in slot.page.tensors():
        tensor[slot.index, :, :count] = mark
    slot.length = count


def holds(slot, mark: float) -> bool:
    return all(bool((t[slot.index, :, : slot.length] == mark).all()) for t in slot.page.tensors())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.integers(1, 300), st.integers(0, 300)),
        st.tuples(st.just("free"), st.integers(0, 30), st.booleans()),
        st.tuples(st.just("copy"), st.integers(0, 30), st.integers(0, 30)),
    ),
    max_size=30,
)


@given(steps=STEPS, budget=st.integers(1, 12))
def test_rows_keep_what_is_theirs(steps, budget):
    held = pages(budget * 256 * TOKEN_BYTES)
    rows: list[tuple] = []
    for mark, (what, a, b) in enumerate(steps):
        if what == "place":
            slot = held.place(a)
            if slot is not None:
                fill(held, slot, mark, min(a, b))
                rows.append((slot, mark))
        elif rows and what == "free":
            slot, _ = rows.pop(a % len(rows))
            held.free(slot, wipe=b)
        elif rows:
            (source, mark_), (target, _) = rows[a % len(rows)], rows[b % len(rows)]
            if source is not target and source.length <= target.page.capacity:
                held.copy(source, target)
                rows = [(s, mark_ if s is target else m) for s, m in rows]
        assert all(holds(slot, m) for slot, m in rows)
        assert all(page.slots[s.index] is s for page in held.pages for s in page.slots)
        assert {id(s) for p in held.pages for s in p.slots} == {id(s) for s, _ in rows}
        used = sum(t.numel() * t.element_size() for p in held.pages for t in p.tensors())
        assert used == held._budget.used <= budget * 256 * TOKEN_BYTES
    for slot, _ in rows:
        held.free(slot)
    assert held.pages == []
    assert held._budget.used == 0


@pytest.mark.parametrize(
    ("tokens", "capacity"), [(1, 64), (64, 64), (65, 128), (128, 128), (1000, 1024)]
)
def test_capacities_are_powers_of_two(tokens, capacity):
    assert capacity_for(tokens) == capacity


@given(tokens=st.integers(1, 700), rows=st.integers(1, 20))
def test_bytes_are_told_before_they_are_taken(tokens, rows):
    held = pages()
    told = held.bytes_for(tokens, rows)
    assert all(held.place(tokens) for _ in range(rows))
    assert held._budget.used == told


def test_what_is_no_number_does_not_outlive_its_row():
    held = pages()
    first, second = held.place(10), held.place(10)
    fill(held, first, torch.nan, 10)
    fill(held, second, 1.0, 10)
    held.free(first, wipe=True)
    assert holds(second, 1.0)
    assert all(bool(t.isfinite().all()) for t in second.page.tensors())
