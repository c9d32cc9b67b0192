"""Stacks: experts of one merge group side by side, kept while the budget allows."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch

from experts.errors import MixError
from experts.stacks import StackCache, stack_experts
from experts.weights import ExpertWeights

Make = Callable[..., ExpertWeights]


def test_a_stack_holds_each_expert_at_its_index(make_expert: Make) -> None:
    experts = [make_expert("lora", "a", 2), make_expert("lora", "b", 5)]
    stack = stack_experts(experts)
    assert stack.index == {"a": 0, "b": 1}
    assert stack.dtype == torch.float64
    for site, tensors in stack.sites.items():
        assert tensors["A"].shape[:2] == (2, 5)
        assert torch.equal(tensors["A"][0, :2], experts[0].sites[site]["A"])
        assert not tensors["A"][0, 2:].any()
        assert all(t.is_contiguous() for t in tensors.values())


def test_vectors_are_stacked_with_zeros_for_whom_has_none(make_expert: Make) -> None:
    site = "encoder.layer.0.output.dense"
    both = make_expert("lora", "both", vectors=("gate", "arrow"))
    some = make_expert("lora", "some", {site: 2}, vectors=("gate",))
    stack = stack_experts([both, some])
    assert set(stack.vectors) == {"gate", "arrow"}
    assert stack.owners == {"gate": {"both", "some"}, "arrow": {"both"}}
    assert stack.vectors["arrow"][site][0].any()
    assert not stack.vectors["arrow"][site][1].any()
    assert torch.equal(stack.vectors["gate"][site][1], some.vectors["gate"][site])
    other = stack.vectors["gate"]["encoder.layer.1.output.dense"]
    assert other[0].any()
    assert not other[1].any()


def test_a_stack_does_not_keep_its_experts_tensors(make_expert: Make) -> None:
    site = "encoder.layer.0.output.dense"
    cache = StackCache()
    experts = [make_expert("lora", id, vectors=("gate",)) for id in ("a", "b")]
    gate = experts[1].vectors["gate"][site].clone()
    [stack] = cache.get(experts)
    held = [weakref.ref(t) for e in experts for t in e.sites[site].values()]
    del experts
    gc.collect()
    assert [ref() for ref in held] == [None] * 4
    assert torch.equal(stack.vectors["gate"][site][1], gate)


def test_no_experts_or_two_groups_are_refused(make_expert: Make) -> None:
    with pytest.raises(MixError):
        stack_experts([])
    with pytest.raises(MixError, match="one merge group"):
        stack_experts([make_expert("lora", "a"), make_expert("bottleneck", "b")])


def test_the_cache_reuses_a_stack_whatever_the_order(make_expert: Make) -> None:
    cache = StackCache()
    a, b = make_expert("lora", "a"), make_expert("lora", "b")
    [first] = cache.get([a, b])
    assert cache.get([b, a])[0] is first
    assert cache.get([a])[0] is not first
    newer = make_expert("lora", "a", version=2)
    assert cache.get([newer, b])[0] is not first


def test_the_cache_gives_one_stack_per_merge_group(make_expert: Make) -> None:
    experts = [make_expert("lora", "a", 2), make_expert("lora", "b", 7),
               make_expert("bottleneck", "c", 3), make_expert("bottleneck", "d", 4)]  # fmt: skip
    assert sorted(sorted(s.index) for s in StackCache().get(experts)) == [["a", "b"], ["c"], ["d"]]


def test_a_dropped_expert_leaves_every_stack(make_expert: Make) -> None:
    cache = StackCache()
    a, b = make_expert("lora", "a"), make_expert("lora", "b")
    together, alone = cache.get([a, b])[0], cache.get([b])[0]
    cache.drop("a")
    assert cache.get([b])[0] is alone
    assert cache.get([a, b])[0] is not together


def test_the_budget_holds_bytes_and_the_oldest_goes_first(make_expert: Make) -> None:
    a, b, c = (make_expert("lora", id) for id in "abc")
    cache = StackCache(budget=2 * stack_experts([a]).nbytes)
    first, second = cache.get([a])[0], cache.get([b])[0]
    assert cache.get([a])[0] is first
    cache.get([c])
    assert cache.get([a])[0] is first
    assert cache.get([b])[0] is not second
    tiny = StackCache(budget=1)
    assert tiny.get([a])[0].index == {"a": 0}
