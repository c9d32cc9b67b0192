"""How sure the first expert is told to be: what counts, and what says nothing."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routers.calibration import Calibration
from routers.confidence import TERMS, confidence, sort_of, told, within
from routers.index import UNSCORED
from routers.metric import FARTHEST

CONSTANTS = Calibration(
    confidence={
        "choices,input": {"bias": 0.5, "log_best": 1.0, "lead": 0.5, "input": 8.0, "choices": 4.0},
        "input": {"bias": 0.5, "log_best": 1.0, "lead": 0.5, "input": 8.0},
    },
    usual={"lead": 3.0, "input": 0.8, "choices": 0.6},
)


def sure(best, lead=3.0, **views):
    given = {n: torch.tensor([v, 0.0]) for n, v in views.items()}
    return confidence(math.log(best), lead, 0, given, CONSTANTS)


def test_without_a_model_it_is_the_first_ones_probability():
    assert confidence(math.log(0.37), 1.0, 0, {}, Calibration()) == pytest.approx(0.37)


@given(st.floats(1e-300, 1), st.floats(0, 1e4), st.floats(-1, 1), st.floats(-1, 1))
def test_it_is_a_probability(best, lead, near, covered):
    assert 0 <= sure(best, lead, input=near, choices=covered) <= 1


def test_nearer_and_likelier_is_surer():
    assert sure(0.9, input=0.9) > sure(0.9, input=0.8) > sure(0.9, input=0.7)
    assert sure(0.99, input=0.8) > sure(0.6, input=0.8)
    assert sure(0.99, 12.0, input=0.8) > sure(0.99, 5.0, input=0.8)


def test_what_is_not_known_of_an_expert_says_what_a_usual_one_says():
    assert sure(0.9, input=UNSCORED) == pytest.approx(sure(0.9, input=0.8))
    assert sure(0.9, None, input=0.7) == pytest.approx(sure(0.9, 3.0, input=0.7))


def test_every_sort_of_query_has_a_model_of_its_own():
    assert sort_of({"input", "density"}) == "input"
    assert sort_of({"labels", "choices", "input", "instruction"}) == "choices,input,instruction"
    assert sure(0.9, input=0.7, choices=0.9) > sure(0.9, input=0.7)
    assert sure(0.9, choices=0.6) == pytest.approx(0.9), "one without an input was never fitted"


def test_an_expert_that_joined_later_has_a_model_of_its_own_where_one_was_fitted():
    assert sort_of({"input", "choices", "labels"}, late=True) == "choices,input,late"
    views = {"input": torch.tensor([0.7])}
    late = CONSTANTS.model_copy(
        update={"confidence": {**CONSTANTS.confidence, "input,late": {"bias": 2.0}}}
    )
    for constants, wanted in ((late, 2.0), (CONSTANTS, None)):
        now = confidence(-0.1, 2.0, 0, views, constants)
        later = confidence(-0.1, 2.0, 0, views, constants, late=True)
        assert now == confidence(-0.1, 2.0, 0, views, CONSTANTS)
        assert later == pytest.approx(now if wanted is None else 1 / (1 + math.exp(-wanted)))


def test_the_first_ones_own_views_count():
    views = {"input": torch.tensor([0.1, 0.9])}
    nearer, farther = (confidence(-0.1, 2.0, i, views, CONSTANTS) for i in (1, 0))
    assert nearer > farther


def test_every_term_is_told():
    terms = told(-0.5, {"lead": 5.0, "input": 0.9}, CONSTANTS.usual)
    assert tuple(terms) == TERMS
    assert terms["lead*input"] == pytest.approx(2.0 * 0.1)
    assert terms["log_best*log_best"] == 0.25
    assert terms["lead*density"] == 0, "no density is known, so it says nothing"


def test_a_view_counts_within_its_bounds():
    assert within("density", -5000.0) == within("density", -300.0) < within("density", -100.0)
    assert within("lead", 1000.0) == 40.0
    assert within("density", FARTHEST) is within("input", UNSCORED) is within("lead", None) is None
