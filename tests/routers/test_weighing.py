"""The hedged rule: sharp where it is sure, flat and weaker where it is not."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routers.calibration import Calibration
from routers.presets import PRESETS
from routers.request import Scores
from routers.weighing import LATE_SURE, LEAST_SHARE, weigh

HEDGED = PRESETS["sailplane"]


def constants(sure):
    """Constants under which every confidence is this one."""
    bias = float(torch.logit(torch.tensor(sure, dtype=torch.float64)))
    return Calibration(confidence={"": {"bias": bias}}, flatness=0.2, unsure=0.6)


def mixed(sure, *probabilities, limit=8):
    score_E = torch.tensor(probabilities, dtype=torch.float64)
    ranked = score_E.argsort(descending=True).tolist()
    return weigh(HEDGED, ranked, Scores(score_E), constants(sure), limit)


def test_who_is_sure_of_one_takes_it_alone_and_whole():
    found = mixed(0.995, 0.99, 0.006, 0.004)
    assert (found.kept, found.strength, found.is_unsure) == ([0], 1.0, False)


def test_a_fit_between_two_is_mixed_by_probability():
    found = mixed(0.9999, 0.7, 0.3)
    assert found.weight_K.tolist() == pytest.approx([0.7, 0.3], abs=1e-3)
    assert found.strength == 1


def test_who_fits_nobody_is_answered_by_many_and_weaker():
    found = mixed(0.001, 0.9, 0.05, 0.03, 0.02)
    assert found.kept == [0, 1, 2, 3]
    assert found.strength == pytest.approx(0.6)
    assert found.is_unsure
    flat_K = torch.tensor([0.9, 0.05, 0.03, 0.02]).double().pow(0.2)
    torch.testing.assert_close(found.weight_K, flat_K / flat_K.sum(), rtol=0.01, atol=0.003)


def test_in_between_it_is_the_mean_of_both():
    found = mixed(0.5, 0.9, 0.1)
    flat = 0.9**0.2 / (0.9**0.2 + 0.1**0.2)
    expected = (0.5 * 0.9 + 0.5 * 0.6 * flat) / 0.8
    assert float(found.weight_K[0]) == pytest.approx(expected)
    assert found.strength == pytest.approx(0.8)


@given(
    st.floats(0.001, 0.999),
    st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=30),
    st.integers(1, 10),
)
def test_weights_sum_to_one_fall_and_are_worth_their_cost(sure, odds, limit):
    found = mixed(sure, *[o / sum(odds) for o in odds], limit=limit)
    weight_K = found.weight_K
    assert float(weight_K.sum()) == pytest.approx(1)
    assert 1 <= len(found.kept) <= min(limit, len(odds))
    assert weight_K.tolist() == sorted(weight_K.tolist(), reverse=True)
    assert float(weight_K[-1]) >= LEAST_SHARE * 0.999 * float(weight_K[0])
    assert 0.6 <= found.strength <= 1
    assert found.confidence == pytest.approx(sure)


def test_many_that_are_asked_for_and_alike_are_all_kept():
    assert len(mixed(0.01, *[1 / 40] * 40, limit=30).kept) == 30


def test_experts_that_may_not_answer_leave_their_share_to_the_rest():
    score_E = torch.tensor([0.98, 0.015, 0.005], dtype=torch.float64)
    found = weigh(HEDGED, [1, 2], Scores(score_E), constants(0.9999), 8)
    assert found.weight_K.tolist() == pytest.approx([0.75, 0.25], abs=1e-3)


def test_scores_of_nothing_are_no_error():
    found = weigh(HEDGED, [0, 1], Scores(torch.zeros(2, dtype=torch.float64)), constants(0.5), 8)
    assert found.weight_K.tolist() == pytest.approx([0.5, 0.5])


def test_of_a_late_one_it_is_enough_to_be_somewhat_sure():
    """It is told to be no surer than it is, and of the others nothing changes."""
    score_E = torch.tensor([0.9, 0.1], dtype=torch.float64)
    bias = constants(0.4).confidence[""]
    both = constants(0.4).model_copy(update={"confidence": {"": bias, "late": bias}})
    for late, trust in ((False, 0.4), (True, 0.4 / LATE_SURE)):
        found = weigh(HEDGED, [0, 1], Scores(score_E), both, 8, late=late)
        assert found.confidence == pytest.approx(0.4)
        assert found.strength == pytest.approx(trust + (1 - trust) * 0.6, abs=0.03)
    bias = constants(LATE_SURE + 0.01).confidence[""]
    sure = both.model_copy(update={"confidence": {"": bias, "late": bias}})
    assert weigh(HEDGED, [0, 1], Scores(score_E), sure, 8, late=True).strength == 1


def test_who_cannot_be_mixed_with_the_first_is_its_rival_all_the_same():
    """Else a near tie between two merge groups would pass for a lead."""
    score_E = torch.tensor([0.45, 0.1, 0.4, 0.05], dtype=torch.float64)
    bare = Calibration(confidence={"": {"log_best": 1.0, "lead": 1.0}}, unsure=0.5)
    found = weigh(HEDGED, [0, 1], Scores(score_E), bare, 8, others=[2, 3])
    logit = math.log(0.45) + math.log(0.45 / 0.4)
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-logit)))
    assert found.kept == [0, 1]
    assert found.rivals == 1
    assert float(found.weight_K.sum()) == pytest.approx(1)
    assert found.weight_K[0] > found.weight_K[1] > 0


def test_sharper_constants_mix_less_and_are_as_sure():
    score_E = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    for sure in (0.9999, 0.3):
        sharp = constants(sure).model_copy(update={"sharpness": 4.0})
        found = weigh(HEDGED, [0, 1, 2], Scores(score_E), sharp, 8)
        sharp_K, flat_K = score_E.pow(4), score_E.pow(4 * 0.2)
        mixed_K = sure * sharp_K / sharp_K.sum() + (1 - sure) * 0.6 * flat_K / flat_K.sum()
        kept_K = mixed_K[: len(found.kept)]
        torch.testing.assert_close(found.weight_K, kept_K / kept_K.sum(), atol=1e-4, rtol=1e-4)
        assert found.confidence == pytest.approx(sure)
