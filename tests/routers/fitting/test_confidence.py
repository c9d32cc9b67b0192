"""Confidence is fitted with each expert left out: who says so must be right as often as it says."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from routers.calibration import Calibration
from routers.confidence import confidence
from routers.fitting.calibrate import Asked, Joined
from routers.fitting.confidence import (
    FEWEST_CASES,
    _case,
    _cases,
    _late_cases,
    fit_confidence,
)
from routers.index import UNSCORED
from routers.metric import FARTHEST

EXPERTS = 6
KNOWN = torch.ones(EXPERTS, dtype=torch.bool)
INPUTS = frozenset({"input", "density"})


def asked_of(*, density, queries=300, told=0.3):
    """Queries whose own expert is nearer; `told`: by how much."""
    rng = torch.Generator().manual_seed(3)
    owner_Q = torch.randint(EXPERTS, (queries,), generator=rng)
    own_QE = F.one_hot(owner_Q, EXPERTS).float()

    def cosines(gap):
        return 0.4 + 0.1 * torch.randn(queries, EXPERTS, generator=rng) + gap * own_QE

    views = {name: cosines(told) for name in ("instruction", "choices", "labels", "input")}
    if not density:
        return Asked(views, owner_Q, KNOWN)
    density_QE = -30 * torch.rand(queries, EXPERTS, generator=rng) * (1 - own_QE)
    away_QE = -30 * torch.rand(queries, EXPERTS, generator=rng)
    return Asked({**views, "density": density_QE}, owner_Q, KNOWN, away_QE)


@pytest.mark.parametrize("density", [False, True])
def test_a_confidence_is_right_as_often_as_it_says(density):
    asked = asked_of(density=density)
    constants = fit_confidence(asked, Calibration())
    said, right = [], []
    for query, owner in enumerate(asked.owner_Q.tolist()):
        for gone in (False, True):
            views = {n: v[query].clone() for n, v in asked.views.items() if n == "input"}
            if density:
                views["density"] = (asked.away_QE if gone else asked.views["density"])[query]
            logit_E = constants.views["density" if density else "input"] * (
                views["density"] if density else views["input"]
            )
            if gone:
                logit_E = logit_E.index_fill(0, torch.tensor([owner]), -torch.inf)
            log_E = logit_E.log_softmax(0)
            first, second = log_E.topk(2).indices.tolist()
            lead = float(log_E[first] - log_E[second])
            said.append(confidence(float(log_E[first]), lead, first, views, constants))
            right.append(float(first == owner and not gone))
    mean_said, mean_right = sum(said) / len(said), sum(right) / len(right)
    assert mean_said == pytest.approx(mean_right, abs=0.1)
    here = sum(s for s, r in zip(said, right, strict=True) if r) / sum(right)
    away = sum(s for s, r in zip(said, right, strict=True) if not r) / (len(right) - sum(right))
    assert here > away + 0.3


def test_the_constants_of_before_stay():
    before = Calibration(flatness=0.5, unsure=0.25, beta=7.0)
    after = fit_confidence(asked_of(density=True), before)
    kept = {"views", "flatness", "unsure", "beta", "gamma", "threshold"}
    assert after.model_dump(include=kept) == before.model_dump(include=kept)
    assert set(after.usual) == {"lead", "instruction", "choices", "labels", "input", "density"}


def test_easy_queries_leave_the_weights_finite_and_few_are_not_learnt_from():
    asked = asked_of(density=False, queries=FEWEST_CASES, told=5.0)
    models = fit_confidence(asked, Calibration()).confidence
    assert len(models) == 4
    assert all(abs(w) < 200 for model in models.values() for w in model.values())
    few = asked_of(density=False, queries=FEWEST_CASES - 1, told=5.0)
    assert fit_confidence(few, Calibration()).confidence == {}


def test_what_never_differs_says_nothing():
    """Not even that it is there: else the fit would lose itself in a number without a meaning."""
    asked = asked_of(density=True)
    flat = torch.full_like(asked.away_QE, 7.0)
    same = replace(asked, views={**asked.views, "density": flat}, away_QE=flat)
    model = fit_confidence(same, Calibration()).confidence["choices,input"]
    assert not any("density" in term for term in model)
    assert all(abs(weight) < 200 for weight in model.values())
    assert abs(model["bias"]) > 0.1


def test_an_expert_that_is_gone_changes_nothing():
    """Not even what stands for the views that others lack."""
    views = {
        "density": torch.tensor([-5.0, FARTHEST, -6.0]),
        "choices": torch.tensor([0.1, 0.4, 0.9]),
        "labels": torch.tensor([0.1, 0.4, 0.9]),
    }
    there_E = torch.tensor([True, True, False])
    case = _case(views, 2, Calibration(), there_E)
    alone = {name: score_E[:2] for name, score_E in views.items()}
    assert case == replace(_case(alone, 9, Calibration(), there_E[:2]), is_own=False)
    views["density"][2] = 90.0
    assert _case(views, 2, Calibration(), there_E) == case


def test_queries_without_an_instruction_are_no_cases_of_one():
    asked = asked_of(density=True)
    words = frozenset({"instruction"}) | INPUTS
    lacking = asked.owner_Q == 0
    said_QE = asked.views["instruction"].masked_fill(lacking[:, None], UNSCORED)
    less = replace(asked, views={**asked.views, "instruction": said_QE})
    every, some = (list(_cases(a, words, Calibration())) for a in (asked, less))
    assert len(every) - len(some) == 2 * int(lacking.sum())
    assert len(list(_cases(less, INPUTS, Calibration()))) == len(every)


def test_experts_of_no_task_are_no_cases_of_those_fitted_on():
    asked = asked_of(density=True)
    stranger_E = torch.tensor([False] * (EXPERTS - 1) + [True])
    strange = replace(asked, known_E=~stranger_E)
    found = list(_cases(strange, INPUTS, Calibration()))
    assert {case.first for case in found} == set(range(EXPERTS - 1))
    assert len(found) < 2 * len(asked.owner_Q)


HIGHER = 90.0
"""By so much are densities higher of experts that the metric does not know."""


def joined(asked, part):
    """Experts of a part as if they had joined later: of inputs that fit, and of others."""
    rng = torch.Generator().manual_seed(4)
    late_E = torch.tensor([e in part for e in range(EXPERTS)])
    queries = [q for q, owner in enumerate(asked.owner_Q.tolist()) if owner in part]
    own_QE = F.one_hot(asked.owner_Q[queries], EXPERTS).float()
    behind_QE = 40 + 40 * torch.rand(own_QE.shape, generator=rng)
    return Joined(late_E, queries, HIGHER * late_E - behind_QE * (1 - own_QE))


def test_experts_that_join_later_are_told_by_cases_of_their_own():
    """What a density is worth depends on whether the metric knows the task."""
    asked = asked_of(density=True)
    assert not any("late" in sort for sort in fit_confidence(asked, Calibration()).confidence)
    late = replace(asked, joined=[joined(asked, part) for part in ((0, 1, 2), (3, 4, 5))])
    constants = fit_confidence(late, Calibration())
    before = fit_confidence(asked, Calibration())
    assert {s: m for s, m in constants.confidence.items() if "late" not in s} == before.confidence
    assert constants.usual == before.usual
    assert constants.usual_late["density"] > constants.usual["density"] + 50
    assert before.usual_late == {}
    assert len(constants.confidence) == 2 * len(before.confidence)

    cases = list(_late_cases(late, frozenset({"input", "density"}), constants))

    def sure(case, *, late):
        views = {n: torch.tensor([v]) for n, v in case.seen.items() if n != "lead"}
        return confidence(case.log_best, case.seen["lead"], 0, views, constants, late=late)

    own, other = ([c for c in cases if c.is_own is is_own] for is_own in (True, False))
    assert min(len(own), len(other)) > 100
    assert sum(sure(c, late=True) for c in own) / len(own) > 0.9
    assert sum(sure(c, late=True) for c in other) / len(other) < 0.1
    # To the others' model a density like that is a sign of its own whoever it is.
    assert sum(sure(c, late=False) for c in other) / len(other) > 0.5


def test_no_case_is_of_a_first_expert_that_was_there_before():
    """Who joined later and lies far behind is never first: there is nothing to learn of it."""
    asked = asked_of(density=True)
    late_E = torch.tensor([True, *[False] * (EXPERTS - 1)])
    queries = torch.nonzero(asked.owner_Q == 0).flatten().tolist()
    density_QE = torch.zeros(len(queries), EXPERTS)
    density_QE[:, 0] = -1000.0
    far = replace(asked, joined=[Joined(late_E, queries, density_QE)])
    cases = list(_late_cases(far, frozenset({"input", "density"}), Calibration()))
    assert [case.first for case in cases] == [0] * len(queries), "where it is all there is"
    assert all(case.is_own for case in cases)
