"""Weights per token: the best few, and nothing of experts that a row has not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.mix import Part, RowMix, build_mix
from experts.stacks import stack_experts
from experts.token_routing import top_softmax
from experts.weights import ExpertWeights
from routers.token.gate import GateRouter

Make = Callable[..., ExpertWeights]
finite = st.sampled_from([-1.0, 0.0, 0.5, 2.0])  # few values, so that ties are common


def per_token(*ids: str) -> RowMix:
    return RowMix(tuple(Part(id, 1 / len(ids)) for id in ids), per_token=True)


@given(data=st.data(), K=st.integers(1, 6), N=st.integers(1, 5))
def test_top_softmax_keeps_exactly_the_best(data: st.DataObject, K: int, N: int) -> None:
    """Of equal scores the earlier wins, whatever the other tokens keep."""
    score = data.draw(st.lists(st.lists(finite, min_size=K, max_size=K), min_size=N, max_size=N))
    keep = data.draw(st.lists(st.integers(1, K), min_size=N, max_size=N))
    weight_NK = top_softmax(
        torch.tensor(score, dtype=torch.float64), torch.tensor(keep).unsqueeze(1)
    )
    for row, count, weight_K in zip(score, keep, weight_NK.tolist(), strict=True):
        best = sorted(range(K), key=lambda k: (-row[k], k))[:count]
        total = sum(math.exp(row[k]) for k in best)
        expected = [math.exp(row[k]) / total if k in best else 0.0 for k in range(K)]
        assert weight_K == pytest.approx(expected, abs=1e-12)


def test_top_softmax_never_picks_a_slot_that_holds_no_expert() -> None:
    score_NK = torch.tensor([[1.0, -torch.inf, -torch.inf], [0.0, 3.0, 1.0]])
    weight_NK = top_softmax(score_NK, torch.tensor([[1], [2]]))
    assert weight_NK[0].tolist() == [1.0, 0.0, 0.0]
    assert (weight_NK[1] > 0).tolist() == [False, True, True]


def test_numbers_of_an_expert_that_a_row_lacks_do_not_reach_its_weights(make_expert: Make) -> None:
    """Rows with fewer candidates than others hold the place of the stack's first expert."""
    experts = [make_expert("lora", id, 2, vectors=("gate",)) for id in ("first", "mine")]
    huge = {"gate": {site: v * 1e308 * 1e8 for site, v in experts[0].vectors["gate"].items()}}
    stack = stack_experts([replace(experts[0], vectors=huge), experts[1]])
    rows = [per_token("first", "mine"), per_token("mine")]
    (group,) = build_mix(rows, [stack], GateRouter()).groups
    site = next(iter(stack.sites))
    width = stack.sites[site]["A"].shape[2]
    x_ND, y_NO = torch.ones(2, width).double(), torch.zeros(2, stack.sites[site]["B"].shape[2])
    out_NO = group.apply(site, x_ND, y_NO.double(), None)
    assert out_NO[1].isfinite().all()
