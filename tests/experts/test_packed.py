"""Packed tensors against the same tensors one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.packed import Packed, all_finite

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SHAPES = st.lists(st.integers(0, 4), max_size=3)


@st.composite
def named(draw: st.DrawFn) -> dict[tuple[str, str], torch.Tensor]:
    """Tensors of any shape and type, some of them transposed."""
    tensors = {}
    for i in range(draw(st.integers(0, 5))):
        tensor = torch.randn(draw(SHAPES), generator=torch.Generator().manual_seed(i))
        tensor = tensor.to(draw(st.sampled_from(DTYPES)))
        tensors["site", str(i)] = tensor.T if tensor.ndim == 2 and draw(st.booleans()) else tensor
    return tensors


@given(named(), st.sampled_from(DTYPES), st.integers(0, 5))
def test_packed_tensors_are_the_tensors(tensors, dtype, scaled):
    scales = {name: 1.5 + i for i, name in enumerate(list(tensors)[:scaled])}
    packed = Packed.of(tensors)
    before = {name: t.clone() for name, t in packed.tensors().items()}
    moved = packed.to(dtype, "cpu", scales).tensors()
    exact = torch.promote_types(dtype, torch.float32)
    assert list(moved) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(before[name], tensor.to(before[name].dtype))
        assert torch.equal(packed.tensors()[name], before[name])  # the original stays
        common = before[name]
        kept = common.to(exact) * scales[name] if name in scales else common
        expected = kept.to(exact).to(dtype) if scales else common.to(dtype)
        assert torch.equal(moved[name], expected)
        assert moved[name].is_contiguous()


def test_one_buffer_holds_all_and_no_more():
    packed = Packed.of({("a", "A"): torch.zeros(3, 2), ("a", "B"): torch.zeros(5).half()})
    assert packed.buffer.dtype == torch.float32
    assert packed.nbytes == 11 * 4
    assert len({t.untyped_storage().data_ptr() for t in packed.tensors().values()}) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_named(dtype, value):
    tensors = {("s", "A"): torch.ones(7, dtype=dtype), ("s", "B"): torch.ones(9, dtype=dtype)}
    assert Packed.of(tensors).infinite() == []
    tensors["s", "B"][3] = value
    assert Packed.of(tensors).infinite() == [("s", "B")]


@given(st.lists(st.floats(width=32), max_size=9))
def test_all_finite_is_isfinite(values):
    tensor = torch.tensor(values)
    assert all_finite(tensor) == bool(tensor.isfinite().all())
