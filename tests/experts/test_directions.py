"""Coefficients give the direction again: in float64 exactly, in half precision nearly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from experts.directions import WEAKEST, coefficients_of, direction_of

SEEDS = st.integers(0, 999)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def half(v_D: Tensor, A_RD: Tensor) -> Tensor:
    """There and back through files in half precision, A from the file."""
    A_RD = A_RD.half()
    return direction_of(coefficients_of(v_D.float(), A_RD.float()).half(), A_RD)


def cosine(a_D: Tensor, b_D: Tensor) -> float:
    return float(F.cosine_similarity(a_D.double(), b_D.double(), dim=0).abs())


@given(st.integers(1, 9), st.integers(1, 24), SEEDS)
def test_a_direction_in_the_rows_span_comes_back(rank: int, width: int, seed: int) -> None:
    """Ranks above the width included."""
    A_RD = drawn(rank, width, seed=seed)
    gains = torch.linalg.svdvals(A_RD)
    assume(gains[-1] > WEAKEST * gains[0])
    v_D = F.normalize(A_RD.T @ drawn(rank, seed=seed + 1), dim=0)
    c_R = coefficients_of(v_D, A_RD)
    assert c_R.shape == (rank,)
    torch.testing.assert_close(direction_of(c_R, A_RD), v_D, atol=1e-9, rtol=0)


@given(st.integers(1, 9), SEEDS, st.sampled_from([1e-3, 1.0, 1e3]))
def test_half_precision_keeps_it(rank: int, seed: int, scale: float) -> None:
    A_RD = drawn(rank, 48, seed=seed)
    v_D = A_RD.T @ drawn(rank, seed=seed + 1)
    got_D = half(v_D, A_RD * scale)
    assert got_D.dtype == torch.float16
    assert float(got_D.double().norm()) == pytest.approx(1, abs=1e-3)
    assert cosine(got_D, v_D) > 1 - 1e-5


def test_rows_that_are_nearly_the_same_do_not_drown_it_in_rounding() -> None:
    """Along their difference there is next to nothing of v, and coefficients would be huge."""
    A_RD = drawn(3, 48)
    A_RD[2] = A_RD[1] + 1e-5 * drawn(48, seed=1)
    v_D = A_RD.T @ drawn(3, seed=2)
    assert cosine(half(v_D, A_RD), v_D) > 1 - 1e-5


@pytest.mark.parametrize("zero", [[0], [0, 2], [0, 1, 2]])
def test_rows_of_zeros_have_no_part(zero: list[int]) -> None:
    A_RD = drawn(3, 8)
    A_RD[zero] = 0
    v_D = A_RD.T @ drawn(3, seed=1)
    c_R = coefficients_of(v_D, A_RD)
    assert not c_R[zero].any()
    got_D = direction_of(c_R, A_RD)
    torch.testing.assert_close(got_D, F.normalize(v_D, dim=0), atol=1e-9, rtol=0)
    assert got_D.any() == (len(zero) < 3)


def test_no_direction_stays_none() -> None:
    c_R = coefficients_of(torch.zeros(8), drawn(3, 8).float())
    assert torch.equal(c_R, torch.zeros(3))
    assert torch.equal(direction_of(c_R, drawn(3, 8)), torch.zeros(8))


def test_what_lies_outside_the_span_is_lost() -> None:
    A_RD = torch.eye(3, 8).double()
    c_R = coefficients_of(torch.ones(8).double(), A_RD)
    torch.testing.assert_close(direction_of(c_R, A_RD), F.normalize(A_RD.sum(0), dim=0))
