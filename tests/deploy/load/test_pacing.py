"""Arrivals of an open loop: their rate, its steps, and how late they are."""

import random
from itertools import pairwise

import pytest

from deploy.load.pacing import Arrivals, Step, steps


def test_rates_are_read():
    assert steps("40") == [Step(40, float("inf"))]
    assert steps("40:30,150:60,40") == [Step(40, 30), Step(150, 60), Step(40, float("inf"))]


@pytest.mark.parametrize("text", ["fast", "40:soon", "0", "-3", "40:0", "40,,50"])
def test_a_rate_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="--rate"):
        steps(text)


def test_arrivals_come_at_the_rate_of_their_step_whenever_they_are_asked_for():
    arrivals = Arrivals(steps("50:100,200:100,50"), 10.0, random.Random(0))
    seen = []
    while arrivals.due < 310:
        arrivals.use_up()
        seen.append(arrivals.due)
    for begin, expected in ((10, 50), (110, 200), (210, 50)):
        found = sum(begin <= due < begin + 100 for due in seen) / 100
        assert found == pytest.approx(expected, rel=0.06)
    gaps = [b - a for a, b in pairwise(seen) if b < 110]
    deviation = (sum((g - 1 / 50) ** 2 for g in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(1 / 50, rel=0.1)  # as exponential gaps have it


def test_lateness_is_the_generators_own():
    arrivals = Arrivals(steps("10"), 5.0, random.Random(0))
    assert arrivals.wait(4.5) == 0.5
    assert arrivals.lag() == 0
    assert arrivals.wait(5.7) == 0
    assert arrivals.lag() == pytest.approx(0.7)
    assert arrivals.lag() == 0
