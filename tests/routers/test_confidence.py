"""How sure the first expert is told to be: what counts, and what says nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from routers.calibration import Calibration
from routers.confidence import TERMS, confidence, told
from routers.index import UNSCORED

CONSTANTS = Calibration(
    confidence={"bias": 0.5, "log_best": 1.0, "log_rest": -0.5, "input": 8.0, "choices": 4.0},
    usual={"input": 0.8, "choices": 0.6},
)


def sure(best, **views):
    return confidence(best, 0, {n: torch.tensor([v, 0.0]) for n, v in views.items()}, CONSTANTS)


def test_without_a_model_it_is_the_first_ones_probability():
    assert confidence(0.37, 0, {}, Calibration()) == 0.37


@given(st.floats(0, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_it_is_a_probability(best, near, covered):
    assert 0 <= sure(best, input=near, choices=covered) <= 1


def test_nearer_and_likelier_is_surer():
    assert sure(0.9, input=0.9) > sure(0.9, input=0.8) > sure(0.9, input=0.7)
    assert sure(0.99, input=0.8) > sure(0.6, input=0.8)


def test_a_view_that_is_not_there_says_what_a_usual_one_says():
    assert sure(0.9) == pytest.approx(sure(0.9, input=0.8, choices=0.6))
    assert sure(0.9, input=UNSCORED) == sure(0.9)


def test_the_first_ones_own_views_count():
    views = {"input": torch.tensor([0.1, 0.9])}
    assert confidence(0.9, 1, views, CONSTANTS) > confidence(0.9, 0, views, CONSTANTS)


def test_every_term_is_told():
    assert tuple(told(0.5, {}, CONSTANTS)) == TERMS
