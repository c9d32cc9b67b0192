"""Confidence is fitted with each expert left out: who says so must be right as often as it says."""

import pytest
import torch
from torch.nn import functional as F

from routers.calibration import Calibration
from routers.confidence import confidence
from routers.fitting.calibrate import Asked
from routers.fitting.confidence import fit_confidence

EXPERTS = 6


def asked_of(*, density, queries=300, told=0.3):
    """Queries whose own expert is nearer; `told`: by how much."""
    rng = torch.Generator().manual_seed(3)
    owner_Q = torch.randint(EXPERTS, (queries,), generator=rng)
    own_QE = F.one_hot(owner_Q, EXPERTS).float()

    def cosines(gap):
        return 0.4 + 0.1 * torch.randn(queries, EXPERTS, generator=rng) + gap * own_QE

    views = {name: cosines(told) for name in ("instruction", "choices", "labels", "input")}
    if not density:
        return Asked(views, owner_Q)
    density_QE = -30 * torch.rand(queries, EXPERTS, generator=rng) * (1 - own_QE)
    away_QE = -30 * torch.rand(queries, EXPERTS, generator=rng)
    return Asked({**views, "density": density_QE}, owner_Q, away_QE)


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


def test_easy_and_few_queries_leave_the_weights_finite():
    asked = asked_of(density=False, queries=4, told=5.0)
    models = fit_confidence(asked, Calibration()).confidence
    assert len(models) == 4
    assert all(abs(w) < 200 for model in models.values() for w in model.values())
