"""Plan -> validate -> apply: defaults, refusals before a tensor is computed with, and ranks."""

from __future__ import annotations

import pytest
import torch

from experts.errors import CorruptExpert, MixError
from experts.merging import RULES, Plan, apply, likenesses, make_plan, merge, validate
from experts.merging.deltas import delta
from experts.merging.report import Likeness
from experts.weights import ExpertWeights
from tests.experts.merging.conftest import SHAPES, lora


@pytest.fixture
def unmerged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is merged fails the test: a refusal comes before any tensor is computed with."""

    def merged(*_: object) -> None:
        pytest.fail("something was merged")

    monkeypatch.setattr("experts.merging.plan.apply", merged)


refusal = pytest.mark.usefixtures("unmerged")


def test_defaults_are_filled_in():
    assert make_plan("average", ["a", "b", "c", "d"]) == Plan(
        RULES["average"], ("a", "b", "c", "d"), (0.25,) * 4, {}
    )
    assert make_plan("task_arithmetic", "ab").weights == (1.0, 1.0)
    assert make_plan("task_arithmetic", "ab").parameters == {"lambda": 0.4}
    ties = make_plan("ties", "ab", parameters={"lambda": 0.5}, rank=3)
    assert (ties.weights, ties.parameters, ties.rank) == ((), {"density": 0.2, "lambda": 0.5}, 3)
    assert make_plan("average", "ab", weights=[3, 1]).weights == (0.75, 0.25)
    assert make_plan("lorahub", "ab", weights=[-1.5, 3]).weights == (-1.5, 3.0)


@refusal
@pytest.mark.parametrize(
    ("rule", "sources", "more", "reason"),
    [
        ("mean", "ab", {}, "no merge rule 'mean'; these are: average, "),
        ("average", "", {}, "one expert at least"),
        ("average", "aba", {}, "none twice"),
        ("average", "ab", {"parameters": {"lambda": 1}}, "no parameter 'lambda'; it takes none"),
        ("ties", "ab", {"parameters": {"densty": 1}}, "it takes density, lambda"),
        ("ties", "ab", {"parameters": {"density": 0}}, "above 0 and up to 1, not 0"),
        ("ties", "ab", {"parameters": {"density": 1.1}}, "above 0 and up to 1, not 1.1"),
        ("ties", "ab", {"parameters": {"density": float("nan")}}, "not nan"),
        ("task_arithmetic", "ab", {"parameters": {"lambda": float("inf")}}, "not inf"),
        ("ties", "ab", {"weights": [1, 1]}, "takes no weights"),
        ("lorahub", "ab", {}, "needs a weight for every expert"),
        ("lorahub", "ab", {"weights": [1]}, "2 finite weights"),
        ("task_arithmetic", "ab", {"weights": [1, float("nan")]}, "2 finite weights"),
        ("average", "ab", {"weights": [-1, 2]}, "not negative"),
        ("average", "ab", {"weights": [0, 0]}, "nor all 0"),
        ("ties", "ab", {"rank": 0}, "1 at least, not 0"),
    ],
)
def test_a_wish_that_a_rule_does_not_take_is_refused(rule, sources, more, reason):
    with pytest.raises(MixError, match=reason):
        make_plan(rule, list(sources), **more)
    with pytest.raises(MixError, match=reason):
        merge(rule, [lora(id) for id in sources], **more)


def bad(number: float) -> ExpertWeights:
    expert = lora("b")
    expert.sites["tall"]["B"][0, 0] = number
    return expert


@refusal
def test_experts_of_the_wrong_kind_are_refused(make_expert):
    bottlenecks = [make_expert("bottleneck", id) for id in "ab"]
    for rule, more in (("ties", {}), ("task_arithmetic", {}), ("lorahub", {"weights": [1, 1]})):
        with pytest.raises(MixError, match=f"{rule} merges experts of kind lora") as caught:
            merge(rule, bottlenecks, **more)
        assert caught.value.details["experts"] == ["a", "b"]
    with pytest.raises(MixError, match="no rank to truncate to"):
        merge("average", bottlenecks, rank=2)


@refusal
def test_experts_of_different_groups_are_refused(make_expert):
    with pytest.raises(MixError, match="different merge groups"):
        merge("average", [make_expert("bottleneck", "a"), make_expert("lora", "b")])
    with pytest.raises(MixError, match="different merge groups"):
        merge("average", [make_expert("bottleneck", "a"), make_expert("bottleneck", "b", 2)])


@refusal
def test_unequal_ranks_are_refused_where_factors_are_combined_apart():
    two = [lora("a", {"wide": 2, "tall": 2}), lora("b", {"wide": 2, "tall": 3})]
    with pytest.raises(MixError, match="differ at tall") as caught:
        merge("lorahub", two, weights=[1, 1])
    assert caught.value.details["sites"] == ["tall"]


def test_ranks_may_differ_from_site_to_site():
    apart = [lora("a", {"wide": 2}), lora("b", {"tall": 3})]
    assert set(merge("lorahub", apart, weights=[1, 1]).expert.sites) == {"wide", "tall"}


@refusal
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(number):
    with pytest.raises(CorruptExpert, match="NaN or infinity") as caught:
        merge("ties", [lora("a"), bad(number)])
    assert caught.value.details["experts"] == ["b"]


@refusal
def test_other_experts_than_planned_are_refused():
    with pytest.raises(MixError, match="names 2 experts, and 1 came"):
        validate(make_plan("average", "ab"), [lora("a")])


def test_two_versions_of_one_expert_can_be_merged_under_names_of_their_own():
    plan = make_plan("average", ["a@1", "a@2"])
    versions = [lora("a", seed=1), lora("a", seed=2)]
    validate(plan, versions)
    made = apply(plan, versions, "both").expert
    assert (made.id, made.kind, made.group, made.vectors) == ("both", "lora", ("lora",), {})


def test_truncation_keeps_to_the_rank_and_tells_the_relative_error():
    experts = [lora("a", 3), lora("b", 3)]
    exact, cut = merge("ties", experts).expert, merge("ties", experts, rank=2)
    assert {t["A"].shape[0] for t in cut.expert.sites.values()} == {2}
    off = [delta(exact.sites[s]) - delta(cut.expert.sites[s]) for s in SHAPES]
    size = sum(delta(exact.sites[s]).square().sum() for s in SHAPES)
    expected = (sum(d.square().sum() for d in off) / size) ** 0.5
    assert cut.error == pytest.approx(float(expected), rel=1e-9)
    assert 0.01 < cut.error < 1
    whole = merge("ties", experts, rank=99)
    assert whole.error == 0
    assert all(torch.equal(whole.expert.sites[s]["A"], exact.sites[s]["A"]) for s in SHAPES)


def test_the_report_compares_deltas_over_all_sites():
    one, other = lora("a", {"wide": 2}), lora("b", {"tall": 2})
    doubled = merge("task_arithmetic", [one], parameters={"lambda": -2.0}).expert
    (row,) = likenesses(["a"], [one], doubled)
    assert (row.source, row.cosine, row.norm) == ("a", pytest.approx(-1), pytest.approx(2))
    apart = merge("average", [one, other]).expert
    a, b = (float(delta(e.sites[s]).norm()) / 2 for e, s in ((one, "wide"), (other, "tall")))
    rows = likenesses(["a", "b"], [one, other], apart)
    assert [r.cosine for r in rows] == pytest.approx([a / (a**2 + b**2) ** 0.5,
                                                      b / (a**2 + b**2) ** 0.5])  # fmt: skip
    assert [r.norm for r in rows] == pytest.approx([(a**2 + b**2) ** 0.5 / (2 * x) for x in (a, b)])


def test_the_report_of_nothing_is_no_division_by_zero(make_expert):
    nothing = merge("lorahub", [lora("a")], weights=[0.0]).expert
    assert likenesses(["a"], [lora("a")], nothing) == (Likeness("a", 0.0, pytest.approx(0.0)),)
    assert likenesses(["n"], [nothing], lora("a")) == (Likeness("n", 0.0, None),)
    two = [make_expert("bottleneck", id) for id in "ab"]
    rows = likenesses("ab", two, merge("average", two).expert)
    assert all(0.5 < r.cosine < 0.9 for r in rows)
