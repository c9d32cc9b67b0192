"""Token scores against their formulas, in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from experts.kernels import Use
from experts.mix import Part, RowMix, build_mix
from experts.stacks import stack_experts
from routers.token import TOKEN_ROUTERS
from routers.token.gate import standardise

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
