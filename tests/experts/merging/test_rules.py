"""Merge rules against PEFT and plain twins in float64, and what must hold of any experts."""

from __future__ import annotations

import math

import peft.utils.merge_utils as peft_merge
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.kinds import KINDS
from experts.merging import merge
from experts.merging.deltas import delta
from experts.merging.ties import disjoint_mean, elect, floor_of, trim, whole_vector
from experts.weights import ExpertWeights
from tests.experts.merging import plain
from tests.experts.merging.conftest import SHAPES, lora

EXACT = {"rtol": 1e-9, "atol": 1e-9}
some_ranks = st.dictionaries(st.sampled_from(sorted(SHAPES)), st.integers(1, 9), min_size=1)


@st.composite
def several(draw: st.DrawFn, least: int = 1) -> list[ExpertWeights]:
    """Up to four experts of any ranks, each at some of the sites."""
    drawn = draw(st.lists(st.tuples(some_ranks, st.integers(0, 2**16)), min_size=least, max_size=4))
    return [lora(f"e{i}", ranks, seed) for i, (ranks, seed) in enumerate(drawn)]


def deltas(expert: ExpertWeights) -> dict[str, torch.Tensor]:
    return plain.dense(expert, SHAPES)


def assert_same(one: ExpertWeights, other: dict[str, torch.Tensor]) -> None:
    for site, expected in other.items():
        torch.testing.assert_close(deltas(one)[site], expected, **EXACT)


def weighted(experts: list[ExpertWeights], weights: list[float]) -> dict[str, torch.Tensor]:
    return {
        site: sum(w * deltas(e)[site] for e, w in zip(experts, weights, strict=True))
        for site in SHAPES
    }


@given(several())
def test_the_average_is_the_mean_of_the_deltas_zero_where_an_expert_has_none(experts):
    assert_same(
        merge("average", experts).expert, weighted(experts, [1 / len(experts)] * len(experts))
    )


@given(several(), st.data())
def test_shares_are_made_to_sum_to_one(experts, data):
    numbers = st.floats(0.1, 5.0)
    shares = data.draw(st.lists(numbers, min_size=len(experts), max_size=len(experts)))
    expected = weighted(experts, [s / sum(shares) for s in shares])
    assert_same(merge("average", experts, weights=shares).expert, expected)


@given(several(), st.floats(-2, 2), st.data())
def test_task_arithmetic_is_the_scaled_sum(experts, scale, data):
    count = len(experts)
    factors = data.draw(st.lists(st.floats(-2, 2), min_size=count, max_size=count))
    made = merge("task_arithmetic", experts, weights=factors, parameters={"lambda": scale})
    assert_same(made.expert, weighted(experts, [scale * f for f in factors]))


def test_task_arithmetic_takes_the_lambda_of_the_demo():
    experts = [lora("a"), lora("b")]
    assert_same(merge("task_arithmetic", experts).expert, weighted(experts, [0.4, 0.4]))


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ("average", {}),
        ("task_arithmetic", {"parameters": {"lambda": 1.0}}),
        ("ties", {"parameters": {"density": 1.0}}),
        ("lorahub", {"weights": [1.0]}),
        ("lorahub", {"weights": [-1.0]}),
    ],
)
@given(experts=several())
def test_one_expert_alone_is_itself(rule, more, experts):
    assert_same(merge(rule, experts[:1], **more).expert, deltas(experts[0]))


@pytest.mark.parametrize("rule", ["average", "task_arithmetic", "ties"])
@given(experts=several(least=2), rng=st.randoms())
def test_the_order_of_experts_does_not_matter(rule, experts, rng):
    shuffled = rng.sample(experts, len(experts))
    assert_same(merge(rule, shuffled).expert, deltas(merge(rule, experts).expert))


@pytest.mark.parametrize("rule", ["average", "task_arithmetic", "ties"])
@given(experts=several())
def test_the_sources_stay_as_they_are_and_nothing_exceeds_full_rank(rule, experts):
    before = [t.clone() for e in experts for t in e.tensors()]
    made = merge(rule, experts).expert
    assert all(torch.equal(a, b) for a, b in zip(
        before, [t for e in experts for t in e.tensors()], strict=True))  # fmt: skip
    assert all(t["A"].shape[0] <= min(SHAPES[site]) for site, t in made.sites.items())
    assert set(made.sites) == {site for e in experts for site in e.sites}


# TIES


@given(several(), st.floats(0.05, 1.0), st.floats(-2, 2))
def test_ties_is_the_papers_on_whole_vectors(experts, density, scale):
    union = [s for s in SHAPES if any(s in e.sites for e in experts)]
    vectors = [torch.cat([deltas(e)[s].flatten() for s in union]) for e in experts]
    kept = [max(1, int(density * sum(math.prod(SHAPES[s]) for s in e.sites))) for e in experts]
    expected = plain.ties(vectors, kept, scale)
    made = merge("ties", experts, parameters={"density": density, "lambda": scale}).expert
    found = torch.cat([deltas(made)[s].flatten() for s in union])
    torch.testing.assert_close(found, expected, **EXACT)


@given(several(), st.integers(2, 4))
def test_ties_of_identical_experts_is_the_trimmed_expert(experts, copies):
    one = experts[0]
    twins = [ExpertWeights(f"t{i}", one.kind, one.group, one.sites) for i in range(copies)]
    floor = floor_of(whole_vector(one), 0.2)
    expected = {site: trim(delta(t), floor) for site, t in one.sites.items()}
    assert_same(merge("ties", twins).expert, expected)


@given(several(least=2))
def test_where_no_signs_conflict_and_none_is_trimmed_ties_is_the_mean_of_those_there(experts):
    positive = [
        ExpertWeights(e.id, e.kind, e.group, {
            s: {part: t.abs() for part, t in parts.items()} for s, parts in e.sites.items()
        }) for e in experts
    ]  # fmt: skip
    made = merge("ties", positive, parameters={"density": 1.0}).expert
    for site in made.sites:
        here = [deltas(e)[site] for e in positive if site in e.sites]
        torch.testing.assert_close(deltas(made)[site], torch.stack(here).mean(0), **EXACT)


def test_trimming_is_by_the_whole_vector_and_not_by_tensor():
    large, small = lora("a", {"wide": 2}, scale=10.0), lora("a", {"tall": 2}, scale=0.01)
    both = ExpertWeights("both", "lora", ("lora",), {**large.sites, **small.sites})
    made = deltas(merge("ties", [both]).expert)
    kept = int(0.2 * (21 + 32))
    assert (made["wide"] != 0).sum() == kept
    assert not made["tall"].any()


def test_a_total_of_zero_takes_the_sign_of_most():
    stack = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 1.0, 1.0]], dtype=torch.float64)
    experts = [
        ExpertWeights(f"e{i}", "lora", ("lora",), {"s": {"A": torch.ones(1, 1).double(), "B": row}})
        for i, row in enumerate(stack[:, None])
    ]
    most = merge("ties", experts, parameters={"density": 1.0}).expert
    torch.testing.assert_close(delta(most.sites["s"]), torch.tensor([[1.0, 1.5, 2.0]]).double())
    flipped = [
        ExpertWeights(e.id, e.kind, e.group, {"s": {**e.sites["s"], "B": -e.sites["s"]["B"]}})
        for e in experts
    ]
    least = merge("ties", flipped, parameters={"density": 1.0}).expert
    torch.testing.assert_close(delta(least.sites["s"]), -torch.tensor([[1.0, 1.5, 2.0]]).double())


@given(st.integers(1, 5), st.integers(0, 2**16), st.floats(0.05, 0.99))
def test_on_one_tensor_the_steps_are_those_of_peft(count, seed, density):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(6, 7, generator=generator, dtype=torch.float64) for _ in range(count)]
    density = max(density, 1 / 42)  # below it PEFT keeps nothing at all
    trimmed = torch.stack([trim(t, floor_of(t.flatten(), density)) for t in tensors])
    ours = disjoint_mean(trimmed, elect(trimmed))
    theirs = peft_merge.ties(tensors, torch.ones(count, dtype=torch.float64), density)
    torch.testing.assert_close(ours, theirs, **EXACT)


# LoraHub


@given(st.integers(1, 4), st.integers(1, 5), st.data())
def test_lorahub_combines_the_factors_apart(count, rank, data):
    experts = [lora(f"e{i}", rank, i) for i in range(count)]
    weights = data.draw(st.lists(st.floats(-1.5, 1.5), min_size=count, max_size=count))
    made = merge("lorahub", experts, weights=weights).expert
    expected = {
        site: sum(
            (v * w * one.sites[site]["A"].T @ other.sites[site]["B"]
             for one, v in zip(experts, weights, strict=True)
             for other, w in zip(experts, weights, strict=True)),
            start=torch.zeros(shape, dtype=torch.float64),
        )
        for site, shape in SHAPES.items()
    }  # fmt: skip
    assert_same(made, expected)
    assert all(t["A"].shape[0] == rank for t in made.sites.values())


def test_lorahub_is_no_sum_of_deltas():
    experts = [lora("a"), lora("b")]
    made = deltas(merge("lorahub", experts, weights=[0.5, 0.5]).expert)
    mean = weighted(experts, [0.5, 0.5])
    assert all((made[s] - mean[s]).norm() > 0.1 * mean[s].norm() for s in SHAPES)


def test_bottlenecks_are_averaged_in_parameter_space(make_expert):
    experts = [make_expert("bottleneck", id) for id in "ab"]
    made = merge("average", experts).expert
    expected = KINDS["bottleneck"].merge(experts, [0.5, 0.5])
    assert made.group == experts[0].group
    for site, parts in expected.sites.items():
        for part, tensor in parts.items():
            torch.testing.assert_close(made.sites[site][part], tensor, **EXACT)
