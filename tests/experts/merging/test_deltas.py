"""From factors to deltas and back, without losing a number."""

import pytest
import torch

from experts.merging.deltas import as_factors, delta, inner, no_wider, truncate

EXACT = {"rtol": 1e-9, "atol": 1e-9}
SHAPES = [(3, 7), (8, 4), (5, 5), (1, 6)]


def drawn(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_dense_delta_is_its_factors_bit_for_bit(shape):
    dense = drawn(*shape)
    factors = as_factors(dense)
    assert torch.equal(delta(factors), dense)
    assert factors["A"].shape[0] == factors["B"].shape[0] == min(shape)
    assert all(t.is_contiguous() for t in factors.values())


def test_factors_are_never_wider_than_full_rank():
    wide = {"A": drawn(9, 3), "B": drawn(9, 7)}
    narrow = no_wider(wide)
    assert narrow["A"].shape == (3, 3)
    torch.testing.assert_close(delta(narrow), delta(wide), **EXACT)
    fitting = {"A": drawn(3, 3), "B": drawn(3, 7)}
    assert no_wider(fitting) is fitting


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_truncation_is_the_best_of_its_rank_and_says_what_it_lost(shape, rank):
    factors = {"A": drawn(6, shape[0]), "B": drawn(6, shape[1])}
    cut, lost = truncate(factors, rank)
    U, S, Vh = torch.linalg.svd(delta(factors), full_matrices=False)
    best = U[:, :rank] * S[:rank] @ Vh[:rank]
    torch.testing.assert_close(delta(cut), best, **EXACT)
    assert cut["A"].shape[0] <= rank
    assert lost == pytest.approx(float((delta(factors) - best).square().sum()), abs=1e-9)


def test_what_has_the_rank_already_stays_as_it_is():
    factors = {"A": drawn(2, 5), "B": drawn(2, 4)}
    assert truncate(factors, 2) == (factors, 0.0)


def test_the_inner_product_is_that_of_the_dense_deltas():
    one = {"A": drawn(2, 5), "B": drawn(2, 4)}
    other = {"A": drawn(3, 5), "B": drawn(3, 4)}
    assert inner(one, other) == pytest.approx(float((delta(one) * delta(other)).sum()), abs=1e-9)
