"""Compiled attention of the newest tokens equals attention in tensors, rows padded and masked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts import native
from experts.decoding.latest import attend_latest, serves
from experts.decoding.pages import ByteBudget, LayerShape, Pages
from experts.decoding.scores import Rule, attend, hidden

pytestmark = pytest.mark.skipif(not native.installed(), reason="needs numba")
KEY, VALUE, ROOM = 5, 3, 64


@st.composite
def cases(draw: st.DrawFn):
    groups, sharing = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(0, 20), min_size=1, max_size=4))
    window = draw(st.sampled_from([None, None, 1, 3, 50]))
    return groups, groups * sharing, lengths, window, draw(st.booleans()), draw(st.booleans())


@given(cases())
def test_it_equals_its_twin(case) -> None:
    G, H, lengths, window, biased, sinks = case
    generator = torch.Generator().manual_seed(H + 7 * sum(lengths))

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    B, longest = len(lengths), max(lengths) + 1
    pages = Pages([LayerShape(G, KEY, VALUE)], torch.float64, torch.device("cpu"),
                  ByteBudget(1 << 22))  # fmt: skip
    for length in lengths:
        slot = pages.place(ROOM)
        assert slot is not None
        slot.length = length
    (page,) = pages.pages
    for tensor in page.tensors():
        tensor.copy_(normal(*tensor.shape))  # what lies beyond a row's tokens must not matter
    q, k, v = normal(B, H, KEY), normal(B, G, KEY), normal(B, G, VALUE)
    rule = Rule(0.3, window, None, normal(H) if sinks else None)
    at_B = torch.tensor(lengths)
    bias = normal(B, H, 1, longest) if biased else None
    keys, values = page.keys[0].clone(), page.values[0].clone()
    rows = torch.arange(B)
    keys[rows, :, at_B], values[rows, :, at_B] = k, v
    added = q.new_zeros(1, 1, 1, longest) if bias is None else bias
    mask = hidden((at_B + 1).view(-1, 1, 1, 1), torch.arange(longest), window, q)
    added = added if mask is None else added + mask
    expected = attend(q.unsqueeze(2), keys[:B, :, :longest], values[:B, :, :longest], rule, added)
    found = attend_latest(q, k, v, page, 0, at_B, rule, longest, bias)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert torch.equal(page.keys[0], keys)
    assert torch.equal(page.values[0], values)


def test_a_soft_cap_is_left_to_its_twin() -> None:
    assert not serves(Rule(1.0, softcap=30.0), torch.zeros(1))
