"""Every strategy of the primitive equals its definition, for any shape and any weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from experts import native
from experts.kernels import STRATEGIES, Use, low_rank_add, mixed_linear, scores
from experts.kernels.choose import cheapest

WITH_GRADIENTS = sorted(set(STRATEGIES) - {"reference", "fused"})
COMPILED = pytest.param(
    "fused", marks=pytest.mark.skipif(not native.installed(), reason="needs numba")
)
FAST = [*WITH_GRADIENTS, COMPILED]
EXACT = {"rtol": 1e-9, "atol": 1e-9}
R, D, O = 2, 5, 3


@st.composite
def uses(draw: st.DrawFn) -> Use:
    """Any use: rectangular or ragged, weights per row or token, some of them zero."""
    B, K, E = (draw(st.integers(1, 4)) for _ in range(3))
    expert_BK = torch.tensor(
        draw(st.lists(st.lists(st.integers(0, E - 1), min_size=K, max_size=K),
                      min_size=B, max_size=B))
    )  # fmt: skip
    lengths = None
    if draw(st.booleans()):
        N = B * draw(st.integers(1, 3))
    else:
        counts = st.lists(st.integers(0, 3), min_size=B, max_size=B)
        lengths = tuple(draw(counts.filter(any)))
        N = sum(lengths)
    per_token = draw(st.booleans())
    count = N if per_token else B
    cells = st.one_of(st.just(0.0), st.floats(0.05, 1.5))
    weight = torch.tensor(
        draw(st.lists(st.lists(cells, min_size=K, max_size=K), min_size=count, max_size=count)),
        dtype=torch.float64,
    )
    return Use(expert_BK, weight, E, N, lengths, per_token)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("strategy", [*FAST, None])
@given(
    use=uses(),
    rank=st.sampled_from([1, 2, 4, 7, 8, 9, 17]),
    widths=st.sampled_from([(5, 3), (5, 3), (513, 3), (5, 1030)]),
)
def test_low_rank_add_equals_its_definition(
    strategy: str | None, use: Use, rank: int, widths: tuple[int, int]
) -> None:
    read, written = widths
    inputs = normal(use.tokens, written), normal(use.tokens, read, seed=1)
    factors = normal(use.experts, rank, read), normal(use.experts, rank, written)
    expected = low_rank_add(*inputs, *factors, use, "reference")
    torch.testing.assert_close(low_rank_add(*inputs, *factors, use, strategy), expected, **EXACT)


@pytest.mark.parametrize("strategy", [*FAST, None])
@given(use=uses())
def test_mixed_linear_equals_its_definition(strategy: str | None, use: Use) -> None:
    inputs = normal(use.tokens, D), normal(use.experts, O, D), normal(use.experts, O)
    expected = mixed_linear(*inputs, use, "reference")
    torch.testing.assert_close(mixed_linear(*inputs, use, strategy), expected, **EXACT)


@pytest.mark.parametrize("strategy", [*FAST, None])
@given(use=uses())
def test_scores_equal_their_definition(strategy: str | None, use: Use) -> None:
    inputs = normal(use.tokens, D), normal(use.experts, D)
    expected = scores(*inputs, use, "reference")
    torch.testing.assert_close(scores(*inputs, use, strategy), expected, **EXACT)


@pytest.mark.parametrize("strategy", FAST)
def test_a_repeated_expert_counts_once_per_slot_and_not_at_weight_zero(strategy: str) -> None:
    x_ND, y_NO = normal(4, D), normal(4, O)
    factors = normal(3, R, D), normal(3, R, O)
    padded = Use(torch.tensor([[2, 2], [1, 1]]), torch.tensor([[0.7, 0.0], [0.5, 0.5]]).double(),
                 3, 4)  # fmt: skip
    plain = Use(torch.tensor([[2], [1]]), torch.tensor([[0.7], [1.0]]).double(), 3, 4)
    torch.testing.assert_close(
        low_rank_add(y_NO, x_ND, *factors, padded, strategy),
        low_rank_add(y_NO, x_ND, *factors, plain, "reference"),
        **EXACT,
    )


@pytest.mark.parametrize("strategy", FAST)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_of_weight_zero_are_left_as_they_are(strategy: str, dtype: torch.dtype) -> None:
    x_ND, y_NO = normal(6, D).to(dtype), normal(6, O).to(dtype)
    factors = normal(2, R, D).to(dtype), normal(2, R, O).to(dtype)
    use = Use(torch.tensor([[0, 1], [0, 0]]), torch.tensor([[0.4, 0.6], [0, 0]]).to(dtype), 2, 6)
    added = low_rank_add(y_NO, x_ND, *factors, use, strategy)
    assert torch.equal(added[3:], y_NO[3:])
    assert not torch.allclose(added[:3], y_NO[:3])
    assert added.dtype == dtype


@pytest.mark.parametrize("strategy", WITH_GRADIENTS)
@pytest.mark.parametrize("per_token", [False, True])
def test_gradients_equal_those_of_the_definition(strategy: str, per_token: bool) -> None:
    """Of every input. Weights are all above zero: `grouped` skips pairs of weight 0 outright."""

    def gradients(name: str) -> list[Tensor]:
        leaves = [normal(6, O), normal(6, D), normal(3, R, D), normal(3, R, O),
                  normal(6 if per_token else 2, 2).abs() + 0.1]  # fmt: skip
        leaves = [leaf.requires_grad_() for leaf in leaves]
        y_NO, x_ND, A_ERD, B_ERO, weight = leaves
        use = Use(torch.tensor([[0, 2], [1, 1]]), weight, 3, 6, per_token=per_token)
        added_NO = low_rank_add(y_NO, x_ND, A_ERD, B_ERO, use, name)
        mixed_NR = mixed_linear(x_ND, A_ERD, B_ERO[:, :, 0], use, name)
        score_NK = scores(x_ND, A_ERD[:, 0], use, name)
        total = added_NO.tanh().sum() + mixed_NR.tanh().sum() + score_NK.tanh().sum()
        return list(torch.autograd.grad(total, leaves))

    for ours, expected in zip(gradients(strategy), gradients("reference"), strict=True):
        torch.testing.assert_close(ours, expected, **EXACT)


@given(use=uses(), rank=st.integers(1, 256), width=st.integers(1, 8192))
def test_the_choice_is_a_strategy_for_any_shape(use: Use, rank: int, width: int) -> None:
    assert cheapest(use, rank, width) in WITH_GRADIENTS
    assert cheapest(use, rank, width, fused=True) in {"gathered", "masked", "fused"}


@given(use=uses(), factor=st.floats(0, 3))
def test_scaling_multiplies_the_weights_of_its_row_only(use: Use, factor: float) -> None:
    factor_B = torch.ones(use.rows, dtype=torch.float64)
    factor_B[0] = factor
    expected = use.weight_NK * use.per_token_rows(factor_B).unsqueeze(1)
    torch.testing.assert_close(use.scaled(factor_B).weight_NK, expected, **EXACT)


@pytest.mark.parametrize("strategy", FAST)
def test_a_ragged_use_equals_the_rectangular_one_it_spells_out(strategy: str) -> None:
    even = Use(torch.tensor([[0], [1]]), torch.tensor([[0.3], [0.9]]).double(), 2, 6)
    spelled = replace(even, lengths=(3, 3))
    x_ND, V_ED = normal(6, D), normal(2, D)
    torch.testing.assert_close(
        scores(x_ND, V_ED, spelled, strategy), scores(x_ND, V_ED, even, strategy), **EXACT
    )


@pytest.mark.parametrize("strategy", FAST)
def test_rows_without_experts_are_left_as_they_are(strategy: str) -> None:
    nobody = torch.zeros(2, 2, dtype=torch.bool)
    use = Use(torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 2).double(), 3, 4,
              present_BK=nobody)  # fmt: skip
    y_NO, x_ND = normal(4, O), normal(4, D)
    assert torch.equal(
        low_rank_add(y_NO, x_ND, normal(3, R, D), normal(3, R, O), use, strategy), y_NO
    )
    assert not mixed_linear(x_ND, normal(3, O, D), normal(3, O), use, strategy).any()


@pytest.mark.parametrize("strategy", FAST)
@pytest.mark.parametrize("per_token", [False, True])
def test_an_expert_that_overflows_spoils_no_token_that_does_not_use_it(strategy, per_token) -> None:
    expert_BK = torch.tensor([[0], [1]])
    weight = torch.ones(6 if per_token else 2, 1)
    use = Use(expert_BK, weight, 2, 6, None, per_token)
    x_ND, y_NO = normal(6, D).float() * 100, normal(6, O).float()
    A_ERD, B_ERO = normal(2, R, D).float(), normal(2, R, O).float()
    huge = torch.tensor([1.0, 5e37]).view(2, 1, 1)
    expected = low_rank_add(y_NO, x_ND, A_ERD, B_ERO, use, "reference")
    found = low_rank_add(y_NO, x_ND, A_ERD * huge, B_ERO, use, strategy)
    torch.testing.assert_close(found[:3], expected[:3])
    assert not found[3:].isfinite().all()
    expected = mixed_linear(x_ND, A_ERD, B_ERO[:, :, 0], use, "reference")
    found = mixed_linear(x_ND, A_ERD * huge, B_ERO[:, :, 0], use, strategy)
    torch.testing.assert_close(found[:3], expected[:3])
