"""One policy: from scores and wishes to a selection, rule by rule."""

import math
from dataclasses import replace

import pytest
import torch

from routers.calibration import Calibration
from routers.policy import Wishes, decide, explicit, ranked_preset
from routers.presets import ALL, PRESETS
from routers.request import REQUEST_ROUTERS, Scores
from routers.types import Features
from routers.weighing import HOPELESS

CONSTANTS = Calibration(threshold=0.6, beta=3.0, gamma=100.0)


def scores(*values: float) -> Scores:
    return Scores(torch.tensor(values))


@pytest.fixture
def choose(catalogue_of):
    """Decide with a preset by name: `choose("dam", scores(...), top_k=1, group={...})`."""

    def run(preset, given, *, group=None, without=(), constants=CONSTANTS, **wishes):
        catalogue = catalogue_of(len(given.score_E), group=group, without=without)
        asked = Wishes(**wishes)
        able = ranked_preset(PRESETS[preset], catalogue, asked)
        return decide(able, given, catalogue, constants, asked)

    return run


@pytest.mark.parametrize(("best", "alpha"), [(0.5, 3.0), (0.6, 3.0), (0.61, 103.0)])
def test_the_global_rule_on_both_sides_of_its_threshold(choose, best, alpha):
    """alpha = beta + gamma [max s > p]; a score at p itself is not above it."""
    rest = 1 - best
    given = Scores(torch.tensor([best, rest * 0.9, rest * 0.1], dtype=torch.float64))
    decision = choose("glider", given)
    assert decision.alpha == alpha
    assert decision.confidence is None
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


def test_sailplane_mixes_eight_of_many(choose):
    decision = choose("sailplane", scores(*[0.05] * 20))
    assert len(decision.selection.ids) == 8
    assert not decision.narrowed


WANT_ALL = ("phatgoose", "arrow", "average")


@pytest.mark.parametrize("preset", WANT_ALL)
@pytest.mark.parametrize("count", [1, 3, ALL])
def test_all_experts_of_one_group_are_used_without_a_look_at_the_query(choose, preset, count):
    decision = choose(preset, scores(*[0.0] * count))
    assert decision.selection.ids == tuple(f"e{i:02d}" for i in range(count))
    assert len({e.weight for e in decision.selection.experts}) == 1
    assert not decision.narrowed
    assert "rank" not in decision.selection.reason
    said = {1: "the only expert", 3: "Of 3 experts, all are", ALL: "Of 64 experts, all are"}
    assert said[count] in decision.selection.reason


@pytest.mark.parametrize("preset", WANT_ALL)
@pytest.mark.parametrize(
    ("count", "group", "wishes", "request_router"),
    [
        (ALL, {}, {}, "uniform"),
        (ALL + 1, {}, {}, "evidence"),
        (ALL + 1, {}, {"deny": frozenset({"e07"})}, "uniform"),
        (3, {1: "bottleneck/48"}, {}, "evidence"),
        (3, {1: "bottleneck/48"}, {"deny": frozenset({"e01"})}, "uniform"),
        (3, {0: "bottleneck/24", 1: "bottleneck/48", 2: "bottleneck/48"}, {}, "evidence"),
        (0, {}, {}, "uniform"),
    ],
)
def test_who_is_left_out_is_not_for_the_alphabet(
    catalogue_of, preset, count, group, wishes, request_router
):
    given = ranked_preset(PRESETS[preset], catalogue_of(count, group=group), Wishes(**wishes))
    assert given.request == request_router
    assert replace(given, request="uniform") == PRESETS[preset]


def test_a_caller_who_wants_few_of_all_gets_the_best(catalogue_of, choose):
    few = Wishes(top_k=2)
    assert ranked_preset(PRESETS["average"], catalogue_of(3), few).request == "evidence"
    assert ranked_preset(PRESETS["average"], catalogue_of(2), few).request == "uniform"
    assert ranked_preset(PRESETS["phatgoose"], catalogue_of(3), few).request == "uniform"
    decision = choose("average", scores(0.1, 0.3, 0.6), top_k=1)
    assert decision.selection.ids == ("e02",)
    assert decision.selection.reason == (
        "Of 3 experts, ranked by evidence, e02 answers alone: no other may be mixed with it."
    )


@pytest.mark.parametrize("preset", [name for name in PRESETS if name not in WANT_ALL])
def test_presets_that_prefer_some_keep_their_request_router(catalogue_of, preset):
    crowd = catalogue_of(ALL + 1, group={1: "bottleneck/48"})
    assert ranked_preset(PRESETS[preset], crowd, Wishes()) is PRESETS[preset]


@pytest.mark.parametrize("preset", WANT_ALL)
def test_of_too_many_the_best_64_are_kept_at_equal_weight(catalogue_of, preset):
    """The query is about the last expert of all; only the first 64 used to be looked at."""
    catalogue = catalogue_of(ALL + 6)
    about = catalogue.experts[-1].artefacts
    query = Features(instruction_D=about.instructions[0])
    constants = Calibration(confidence={"": {"bias": -9.0}})  # nobody fits, and nobody has to
    given = ranked_preset(PRESETS[preset], catalogue, Wishes())
    ranking = REQUEST_ROUTERS[given.request].score(query, catalogue, constants)
    decision = decide(given, ranking, catalogue, constants, Wishes())
    best = ranking.score_E.argsort(descending=True, stable=True)[:ALL].tolist()
    assert decision.selection.ids == tuple(catalogue.ids[i] for i in best)
    assert decision.selection.ids[0] == "e69"
    assert {e.weight for e in decision.selection.experts} == {1 / ALL}
    assert {e.prior for e in decision.selection.experts} == {0.0}
    assert (decision.narrowed, decision.fallback, decision.alpha) == (True, None, None)
    assert decision.selection.reason.startswith("Of 70 experts, ranked by evidence, 64 are ")


@pytest.mark.parametrize("preset", WANT_ALL)
def test_the_query_decides_which_merge_group_answers(catalogue_of, preset):
    catalogue = catalogue_of(4, group={2: "bottleneck/48", 3: "bottleneck/48"})
    for own, kept in ((0, {"e00", "e01"}), (3, {"e02", "e03"})):
        query = Features(instruction_D=catalogue.experts[own].artefacts.instructions[1])
        given = ranked_preset(PRESETS[preset], catalogue, Wishes())
        ranking = REQUEST_ROUTERS[given.request].score(query, catalogue, CONSTANTS)
        decision = decide(given, ranking, catalogue, CONSTANTS, Wishes())
        assert set(decision.selection.ids) == kept
        assert decision.narrowed
        assert decision.dropped.keys() == set(catalogue.ids) - kept


def test_only_who_had_rivals_is_said_to_leave_them_behind(choose):
    close = scores(0.5, 0.49, 0.01)
    for alone in (choose("retrieval", close), choose("dam", close, top_k=1)):
        assert alone.selection.reason.startswith("e00 is the best by ")
    sure = choose("sailplane", scores(0.98, 0.01, 0.01)).selection
    assert sure.reason == "e00 scores 0.98 and no other expert comes near."


def test_a_lone_expert_of_its_group_is_not_said_to_score(choose):
    decision = choose("average", scores(0.2, 0.7, 0.1), group={1: "bottleneck/48"})
    assert decision.selection.mode == "single"
    assert "comes near" not in decision.selection.reason
    assert "e01 answers alone" in decision.selection.reason


@pytest.mark.parametrize("preset", ["phatgoose", "arrow"])
def test_token_presets_want_everybody_and_say_when_they_got_fewer(choose, preset):
    all_of_them = choose(preset, scores(*[0.0] * ALL))
    assert len(all_of_them.selection.ids) == ALL
    assert not all_of_them.narrowed
    more = choose(preset, scores(*[0.0] * (ALL + 1)))
    assert len(more.selection.ids) == ALL
    assert more.narrowed
    assert more.selection.token_router == {"phatgoose": "gate", "arrow": "arrow"}[preset]
    assert more.selection.top_k == {"phatgoose": 2, "arrow": 3}[preset]
    assert {e.prior for e in more.selection.experts} == {0.0}


def test_average_weighs_all_alike_and_retrieval_takes_one(choose):
    average = choose("average", scores(0.0, 0.0, 0.0, 0.0)).selection
    assert average.mode == "merge"
    assert [e.weight for e in average.experts] == [0.25] * 4
    assert choose("retrieval", scores(0.1, 0.9, 0.5)).selection.ids == ("e01",)


@pytest.mark.parametrize("preset", ["sailplane", "glider", "dam", "average", "retrieval"])
def test_weights_sum_to_one_and_the_best_comes_first(choose, preset):
    selection = choose(preset, scores(0.1, 0.3, 0.2, 0.25)).selection
    weights = [e.weight for e in selection.experts]
    assert math.fsum(weights) == pytest.approx(1)
    assert weights == sorted(weights, reverse=True)
    assert selection.strength == (0.75 if preset == "sailplane" else 1)  # 0.3 is not sure
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


def test_a_query_that_fits_nobody_is_answered_by_many_and_says_so(choose):
    constants = Calibration(confidence={"": {"bias": -3.0}}, unsure=0.5, flatness=0.1)
    decision = choose("sailplane", scores(0.7, 0.2, 0.1), constants=constants)
    assert (decision.selection.mode, decision.fallback) == ("merge", "no_fit")
    assert decision.confidence == pytest.approx(0.047, abs=1e-3)
    assert (len(decision.selection.ids), decision.selection.strength) == (3, 0.5)
    assert decision.selection.reason == (
        "No expert surely fits (confidence 0.05): the nearest 3 answer at strength 0.5: "
        "e00, e01, e02."
    )
    alone = choose("sailplane", scores(0.7, 0.2, 0.1), constants=constants, top_k=1).selection
    assert "the nearest answers at strength 0.5: e00." in alone.reason
    assert choose("sailplane", scores(0.7, 0.2, 0.1)).fallback is None


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


def test_in_token_mode_evidence_is_added_as_log_probabilities(choose):
    """So that with gates that say nothing, tokens mix by the request's own weights."""
    merged = choose("sailplane", scores(0.6, 0.4)).selection
    token = choose("sailplane", scores(0.6, 0.4), mode="token").selection
    assert (token.mode, token.token_router) == ("token", "gate")
    for chosen, same in zip(token.experts, merged.experts, strict=True):
        assert chosen.weight == same.weight
        assert math.exp(chosen.prior) == pytest.approx(same.weight)


@pytest.mark.parametrize("preset", ["sailplane", "dam", "average"])
def test_experts_of_another_group_than_the_best_are_left_out_by_name(choose, preset):
    """Two bottleneck experts of different widths cannot merge, though they are of one kind."""
    groups = {1: "bottleneck/48", 2: "bottleneck/24", 3: "bottleneck/48"}
    decision = choose(preset, scores(0.1, 0.35, 0.3, 0.25), group=groups)
    assert decision.selection.ids == ("e01", "e03")
    assert decision.dropped == {
        "e00": "merge group lora differs from bottleneck/48",
        "e02": "merge group bottleneck/24 differs from bottleneck/48",
    }


def test_the_dropped_are_named_up_to_a_bound(choose):
    groups = dict.fromkeys(range(1, 40), "bottleneck/48")
    decision = choose("average", scores(1.0, *[0.0] * 39), group=groups)
    assert decision.selection.ids == ("e00",)
    assert len(decision.dropped) == 16


@pytest.mark.parametrize("without", [0, 1, 2])
def test_an_expert_without_gates_keeps_its_weight_at_every_token(choose, without):
    given = scores(0.4, 0.38, 0.36)
    selection = choose("glider", given, without=(without,)).selection
    everyone = choose("glider", given).selection
    assert (selection.mode, selection.ids) == ("token", everyone.ids)
    assert [e.fixed for e in selection.experts] == [i == without for i in range(3)]
    assert [e.weight for e in selection.experts] == [e.weight for e in everyone.experts]


def test_without_any_gates_the_request_decides_alone(choose):
    selection = choose("glider", scores(0.4, 0.35, 0.25), without=(0, 1, 2)).selection
    assert (selection.mode, selection.ids) == ("merge", ("e00", "e01"))
    assert not any(e.fixed for e in selection.experts)


def test_gates_too_far_behind_to_be_heard_leave_the_request_alone(choose):
    constants = Calibration(beta=300.0, gamma=0.0)
    selection = choose("glider", scores(0.5, 0.45, 0.05), without=(0, 1), constants=constants)
    assert (selection.selection.mode, selection.selection.ids) == ("merge", ("e00", "e01"))


def test_explicit_weights_keep_their_sum_as_the_strength():
    selection = explicit({"b": 0.5, "a": 1.5}, {"a": ("a", 3), "b": ("b", 7)})
    assert selection.strength == 2
    assert [(e.id, e.version, e.weight) for e in selection.experts] == [
        ("a", 3, 0.75),
        ("b", 7, 0.25),
    ]
    assert selection.mode == "merge"
    alone = explicit({"a": 0.4}, {"a": ("a", 1)})
    assert (alone.mode, alone.strength, alone.experts[0].weight) == ("single", 0.4, 1)
    nothing = explicit({"a": 0.0}, {"a": ("a", 1)})
    assert (nothing.strength, nothing.experts[0].weight) == (0, 0)


def test_every_preset_names_a_request_router_that_exists():
    from routers.token import TOKEN_ROUTERS

    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset.request is None or preset.request in REQUEST_ROUTERS
        assert preset.token is None or preset.token in TOKEN_ROUTERS


def test_who_joined_after_the_constants_were_fitted_is_weighed_as_such(choose):
    """By the expert that comes first; without a list of those fitted on, nobody did."""
    models = {"": {"bias": 4.0}, "late": {"bias": -4.0}}
    early, late = 1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4))
    constants = Calibration(confidence=models, fitted_on=("e00", "e02"))
    for given, wanted in ((scores(0.9, 0.1, 0.0), early), (scores(0.1, 0.9, 0.0), late)):
        decision = choose("sailplane", given, constants=constants)
        assert decision.confidence == pytest.approx(wanted)
        assert (decision.fallback == "no_fit") == (wanted < 0.5)
    nobody = constants.model_copy(update={"fitted_on": ()})
    assert choose("sailplane", scores(0.1, 0.9), constants=nobody).confidence == (
        pytest.approx(early)
    )


def test_presets_that_route_by_constants_say_so(choose):
    """Under other constants all others choose and weigh as before."""
    given = scores(0.5, 0.3, 0.2)
    other = Calibration(threshold=0.1, beta=30.0, confidence={"": {"bias": 1.0}}, flatness=1.0)
    for name, preset in PRESETS.items():
        if preset.request is not None and not preset.is_calibrated:
            first, second = (choose(name, given, constants=c) for c in (CONSTANTS, other))
            assert first == second
    assert {n for n, p in PRESETS.items() if p.is_calibrated} == {"sailplane", "glider"}
