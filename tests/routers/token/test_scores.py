"""Token scores against their formulas, in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from experts.kernels import Use, scores
from experts.mix import Part, RowMix, build_mix
from experts.stacks import stack_experts
from routers.token import TOKEN_ROUTERS
from routers.token.gate import EPSILON, standardise

D, E, K, ROWS, PER_ROW = 24, 5, 3, 4, 7


@pytest.fixture
def drawn():
    """Raw tokens with a mean and a spread, raw vectors, and who may answer for each row."""
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(ROWS * PER_ROW, D, generator=generator, dtype=torch.float64) * 3 + 1.5
    V_ED = torch.randn(E, D, generator=generator, dtype=torch.float64) + 0.7
    expert_BK = torch.stack([torch.randperm(E, generator=generator)[:K] for _ in range(ROWS)])
    weight_BK = torch.full((ROWS, K), 1 / K, dtype=torch.float64)
    return x_ND, V_ED, Use(expert_BK, weight_BK, E, len(x_ND))


def test_a_gate_scores_the_standardised_token(drawn):
    """PHATGOOSE: LN(v) . LN(u) / sqrt(d), for the raw token u and the trained gate v."""
    x_ND, V_ED, use = drawn
    got_NK = TOKEN_ROUTERS["gate"].scores(x_ND, standardise(V_ED), use)
    u_ND, v_ED = F.layer_norm(x_ND, (D,)), F.layer_norm(V_ED, (D,))
    slow_NK = torch.stack([u_ND[n] @ v_ED[use.expert_NK[n]].T / D**0.5 for n in range(len(x_ND))])
    torch.testing.assert_close(got_NK, slow_NK, atol=1e-9, rtol=0)
    assert (got_NK.abs() <= D**0.5 + 1e-9).all()  # what the policy's HOPELESS rests on


@pytest.mark.parametrize("width", [384, 1536])
@pytest.mark.parametrize("spread", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("mean", [0.0, 1.0, 100.0, -1000.0])
def test_a_token_that_hardly_varies_scores_within_the_bound(mean, spread, width):
    """Its variance is a difference of two sums that are nearly equal: less than 0 by rounding."""
    generator = torch.Generator().manual_seed(0)
    x_ND = mean + spread * torch.randn(200, width, generator=generator)
    V_ED = standardise(torch.randn(E, width, generator=generator))
    use = Use(torch.arange(E)[None], torch.ones(1, E), E, len(x_ND))
    got_NE = TOKEN_ROUTERS["gate"].scores(x_ND, V_ED, use)
    assert got_NE.isfinite().all()
    assert (got_NE.abs() <= width**0.5).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0, 2000.0])
def test_half_precision_scores_as_float32_does(scale, dtype):
    """A norm above 256 squared, or a product with a gate, is more than float16 holds."""
    width = 384
    generator = torch.Generator().manual_seed(0)
    x_ND = (scale * (1 + torch.randn(50, width, generator=generator))).to(dtype)
    V_ED = standardise(torch.randn(E, width, generator=generator)).to(dtype)
    use = Use(torch.arange(E)[None], torch.ones(1, E, dtype=dtype), E, len(x_ND))
    got_NE = TOKEN_ROUTERS["gate"].scores(x_ND, V_ED, use)
    assert got_NE.dtype == dtype
    wide_NE = TOKEN_ROUTERS["gate"].scores(x_ND.float(), V_ED.float(), use)
    torch.testing.assert_close(got_NE, wide_NE.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ordinary_tokens_score_bit_for_bit_by_the_plain_formula(dtype):
    generator = torch.Generator().manual_seed(0)
    x_ND = 1.5 + 3 * torch.randn(50, 384, generator=generator, dtype=dtype)
    V_ED = standardise(torch.randn(E, 384, generator=generator, dtype=dtype))
    use = Use(torch.arange(E)[None], torch.ones(1, E, dtype=dtype), E, len(x_ND))
    variance_N1 = torch.linalg.vector_norm(x_ND, dim=1, keepdim=True).square() / 384
    variance_N1 = variance_N1 - x_ND.mean(dim=1, keepdim=True).square()
    plain_NE = scores(x_ND, V_ED, use) * torch.rsqrt((variance_N1 + EPSILON) * 384)
    assert torch.equal(TOKEN_ROUTERS["gate"].scores(x_ND, V_ED, use), plain_NE)


def test_a_gate_of_zeros_and_a_token_of_zeros_score_zero(drawn):
    x_ND, V_ED, use = drawn
    assert standardise(torch.zeros(D)).tolist() == [0] * D
    router = TOKEN_ROUTERS["gate"]
    assert not router.scores(x_ND, torch.zeros_like(V_ED), use).any()
    assert not router.scores(torch.zeros_like(x_ND), standardise(V_ED), use).any()


def test_arrow_scores_the_magnitude_along_the_prototype(drawn):
    x_ND, V_ED, use = drawn
    router = TOKEN_ROUTERS["arrow"]
    got_NK = router.scores(x_ND, V_ED, use)
    slow_NK = torch.stack([(V_ED[use.expert_NK[n]] @ x_ND[n]).abs() for n in range(len(x_ND))])
    torch.testing.assert_close(got_NK, slow_NK, atol=1e-9, rtol=0)
    torch.testing.assert_close(router.scores(x_ND, -V_ED, use), got_NK)  # the sign is arbitrary


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_constant_scores_with_log_weights_as_priors_are_a_merge(kind, encoder64, make_expert, rows):
    experts = [make_expert(kind, id) for id in ("a", "b", "c")]
    weights = {"a": 0.5, "b": 0.2, "c": 0.3}
    parts = tuple(Part(i, w, math.log(w)) for i, w in weights.items())
    per_token = RowMix(parts, per_token=True, top_k=3)
    stacks = [stack_experts(experts)]
    merged = build_mix([RowMix.of(weights)] * len(rows), stacks)
    routed = build_mix([per_token] * len(rows), stacks, TOKEN_ROUTERS["constant"])
    with torch.no_grad():
        torch.testing.assert_close(
            encoder64.run(rows, routed), encoder64.run(rows, merged), atol=1e-9, rtol=0
        )
