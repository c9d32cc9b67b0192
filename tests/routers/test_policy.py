"""One policy: from scores and wishes to a selection, rule by rule."""

import math

import pytest
import torch

from routers.calibration import Calibration
from routers.policy import HOPELESS, Wishes, decide, explicit
from routers.presets import ALL, PRESETS
from routers.request import Scores

CONSTANTS = Calibration(threshold=0.6, beta=3.0, gamma=100.0)


def scores(*values: float, fit: float | None = 0.9) -> Scores:
    return Scores(torch.tensor(values), fit=fit)


@pytest.fixture
def choose(catalogue_of):
    """Decide with a preset by name: `choose("dam", scores(...), top_k=1, kind={...})`."""

    def run(preset, given, *, kind=None, without=(), constants=CONSTANTS, **wishes):
        catalogue = catalogue_of(len(given.score_E), kind=kind, without=without)
        return decide(PRESETS[preset], given, catalogue, constants, Wishes(**wishes))

    return run


@pytest.mark.parametrize(("best", "alpha"), [(0.5, 3.0), (0.6, 3.0), (0.61, 103.0)])
def test_the_global_rule_on_both_sides_of_its_threshold(choose, best, alpha):
    """alpha = beta + gamma [max s > p]; a score at p itself is not above it."""
    rest = 1 - best
    given = Scores(torch.tensor([best, rest * 0.9, rest * 0.1], dtype=torch.float64), fit=0.9)
    decision = choose("glider", given)
    assert decision.alpha == alpha
    assert decision.confidence == pytest.approx(best)
    expected = {"e00": best, "e01": rest * 0.9, "e02": rest * 0.1}
    for chosen in decision.selection.experts:
        assert chosen.prior == pytest.approx(alpha * expected[chosen.id])
        assert chosen.score == pytest.approx(expected[chosen.id])


def test_an_unsure_request_leaves_it_to_the_tokens(choose):
    decision = choose("glider", scores(0.4, 0.3, 0.2, 0.1))
    assert decision.selection.mode == "token"
    assert decision.selection.token_router == "gate"
    assert decision.selection.ids == ("e00", "e01", "e02", "e03")
    assert decision.selection.top_k == 2


def test_a_sure_request_leaves_nobody_else(choose):
    selection = choose("glider", scores(0.9, 0.05, 0.05)).selection
    assert (selection.mode, selection.ids, selection.token_router) == ("single", ("e00",), None)
    assert selection.experts[0].weight == 1


def test_who_is_hopelessly_behind_is_no_candidate(choose):
    """With alpha = 103, 0.7 against 0.3 is 41.2 behind and 0.63 against 0.37 only 26.8."""
    assert 103 * 0.4 > HOPELESS > 103 * 0.26
    assert choose("glider", scores(0.7, 0.3)).selection.ids == ("e00",)
    assert choose("glider", scores(0.63, 0.37)).selection.ids == ("e00", "e01")


def test_glider_takes_eight_candidates_of_many(choose):
    decision = choose("glider", scores(*[0.05] * 20))
    assert len(decision.selection.ids) == 8
    assert not decision.narrowed


@pytest.mark.parametrize("preset", ["phatgoose", "arrow"])
def test_token_presets_want_everybody_and_say_when_they_got_fewer(choose, preset):
    all_of_them = choose(preset, scores(*[0.0] * ALL, fit=None))
    assert len(all_of_them.selection.ids) == ALL
    assert not all_of_them.narrowed
    more = choose(preset, scores(*[0.0] * (ALL + 1), fit=None))
    assert len(more.selection.ids) == ALL
    assert more.narrowed
    assert more.selection.token_router == {"phatgoose": "gate", "arrow": "arrow"}[preset]
    assert more.selection.top_k == {"phatgoose": 2, "arrow": 3}[preset]
    assert {e.prior for e in more.selection.experts} == {0.0}


def test_average_weighs_all_alike_and_retrieval_takes_one(choose):
    average = choose("average", scores(0.0, 0.0, 0.0, 0.0, fit=None)).selection
    assert average.mode == "merge"
    assert [e.weight for e in average.experts] == [0.25] * 4
    assert choose("retrieval", scores(0.1, 0.9, 0.5, fit=None)).selection.ids == ("e01",)


@pytest.mark.parametrize("preset", ["glider", "dam", "average", "phatgoose", "retrieval"])
def test_weights_sum_to_one_and_the_best_comes_first(choose, preset):
    selection = choose(preset, scores(0.1, 0.3, 0.2, 0.25)).selection
    weights = [e.weight for e in selection.experts]
    assert math.fsum(weights) == pytest.approx(1)
    assert weights == sorted(weights, reverse=True)
    assert selection.strength == 1
    assert selection.reason


def test_equal_scores_are_ordered_by_id(choose):
    assert choose("dam", scores(0.5, 0.5, 0.5, 0.5)).selection.ids == ("e00", "e01")


def test_allow_and_deny(choose):
    given = scores(0.4, 0.3, 0.2, 0.1)
    assert choose("dam", given, deny=frozenset({"e00"})).selection.ids == ("e01", "e02")
    assert choose("dam", given, allow=frozenset({"e03", "e02"})).selection.ids == ("e02", "e03")
    both = choose("dam", given, allow=frozenset({"e01", "e02"}), deny=frozenset({"e01"}))
    assert both.selection.ids == ("e02",)


def test_nobody_left_falls_back_on_the_bare_backbone(choose):
    for wishes in ({"allow": frozenset()}, {"deny": frozenset({"e00", "e01"})}):
        decision = choose("dam", scores(0.5, 0.4), **wishes)
        assert (decision.selection.mode, decision.fallback) == ("base", "no_expert")
        assert decision.selection.experts == ()
    assert choose("glider", scores()).fallback == "no_expert"


def test_a_query_that_fits_nobody_falls_back_and_says_how_far_off_it_is(choose):
    decision = choose("glider", scores(0.5, 0.5, fit=-0.012))
    assert (decision.selection.mode, decision.fallback) == ("base", "no_fit")
    assert "0.012" in decision.selection.reason
    assert choose("glider", scores(0.5, 0.5, fit=0.0)).fallback is None
    assert choose("dam", scores(0.5, 0.5, fit=None)).fallback is None  # it cannot tell


def test_top_k_is_per_sample_when_merging_and_per_token_in_token_mode(choose):
    given = scores(0.3, 0.25, 0.25, 0.2)
    assert len(choose("dam", given, top_k=3).selection.ids) == 3
    assert len(choose("average", given, top_k=1).selection.ids) == 1
    token = choose("glider", given, top_k=1).selection
    assert (token.mode, token.top_k, len(token.ids)) == ("token", 1, 4)


def test_mode_merge_merges_the_best_of_a_token_preset(choose):
    given = scores(0.3, 0.25, 0.25, 0.2)
    merged = choose("glider", given, mode="merge").selection
    assert (merged.mode, merged.token_router, len(merged.ids)) == ("merge", None, 2)
    odds = math.exp(3 * 0.3), math.exp(3 * 0.25)
    assert merged.experts[0].weight == pytest.approx(odds[0] / sum(odds))
    assert len(choose("glider", given, mode="merge", top_k=3).selection.ids) == 3


def test_mode_token_routes_the_candidates_of_a_merging_preset_by_gates(choose):
    token = choose("dam", scores(0.3, 0.29, 0.1), mode="token").selection
    assert (token.mode, token.token_router) == ("token", "gate")
    assert token.ids == ("e00", "e01")


def test_experts_of_another_kind_than_the_best_are_left_out_by_name(choose):
    decision = choose(
        "average", scores(0.1, 0.4, 0.3, 0.2), kind={1: "bottleneck", 2: "bottleneck"}
    )
    assert decision.selection.ids == ("e01", "e02")
    assert decision.dropped.keys() == {"e00", "e03"}
    assert all("bottleneck" in why for why in decision.dropped.values())


def test_the_dropped_are_named_up_to_a_bound(choose):
    kinds = dict.fromkeys(range(1, 40), "bottleneck")
    decision = choose("average", scores(1.0, *[0.0] * 39), kind=kinds)
    assert decision.selection.ids == ("e00",)
    assert len(decision.dropped) == 16


def test_experts_without_gates_are_no_candidates_of_tokens(choose):
    decision = choose("glider", scores(0.4, 0.35, 0.25), without=(1,))
    assert decision.selection.ids == ("e00", "e02")
    assert decision.dropped == {"e01": "no gate vectors"}


def test_a_best_expert_without_gates_is_merged_and_not_passed_over(choose):
    selection = choose("glider", scores(0.4, 0.35, 0.25), without=(0,)).selection
    assert (selection.mode, selection.ids) == ("merge", ("e00", "e01"))


def test_explicit_weights_keep_their_sum_as_the_strength():
    selection = explicit({"b": 0.5, "a": 1.5}, {"a": 3, "b": 7})
    assert selection.strength == 2
    assert [(e.id, e.version, e.weight) for e in selection.experts] == [
        ("a", 3, 0.75),
        ("b", 7, 0.25),
    ]
    assert selection.mode == "merge"
    alone = explicit({"a": 0.4}, {"a": 1})
    assert (alone.mode, alone.strength, alone.experts[0].weight) == ("single", 0.4, 1)
    nothing = explicit({"a": 0.0}, {"a": 1})
    assert (nothing.strength, nothing.experts[0].weight) == (0, 0)


def test_every_preset_names_a_request_router_that_exists():
    from routers.request import REQUEST_ROUTERS
    from routers.token import TOKEN_ROUTERS

    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.request is None or preset.request in REQUEST_ROUTERS
        assert preset.token is None or preset.token in TOKEN_ROUTERS
