"""The primitives against scipy and scikit-learn, or by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from benchmarks.quality.statistics import (
    RESAMPLES,
    calibration_error,
    chosen_by_half,
    half_and_half,
    interval_of,
    mean_over_tasks,
    reliability,
    resampled,
    separation,
)

SHARES = st.floats(0, 1, allow_nan=False)
PAIRS = st.lists(st.tuples(SHARES, st.booleans()), min_size=1, max_size=80)


def arrays(pairs):
    confidence, right = zip(*pairs, strict=True)
    return np.array(confidence), np.array(right, dtype=float)


def test_the_interval_of_right_answers_is_that_of_the_binomial():
    """A bootstrap of 0 and 1 draws from a binomial: its quantiles are known."""
    right_N = np.array([1.0] * 120 + [0.0] * 80)
    found = interval_of(0.6, resampled(right_N, "a task"))
    low, high = binom.ppf([0.025, 0.975], 200, 0.6) / 200
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)


def test_draws_are_the_same_for_a_seed_and_differ_between_seeds():
    values = np.arange(50.0)
    assert (resampled(values, "a") == resampled(values, "a")).all()
    assert (resampled(values, "a") != resampled(values, "b")).any()
    assert resampled(values, "a").shape == (RESAMPLES,)


def test_every_task_counts_the_same_whatever_its_size():
    small, large = np.array([1.0, 1.0]), np.zeros(500)
    found = mean_over_tasks([small, large], ["small", "large"])
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)


def test_a_mean_of_no_task_is_refused():
    with pytest.raises(ValueError, match="at least one task"):
        mean_over_tasks([], [])


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_examples_does_not_matter(pairs, rng):
    shuffled = rng.sample(pairs, len(pairs))
    assert calibration_error(*arrays(pairs)) == pytest.approx(calibration_error(*arrays(shuffled)))


@given(PAIRS)
def test_the_error_is_between_the_plain_bias_and_the_plain_distance(pairs):
    """One bin is the bias; bins can only add to it, up to the distance of level from outcome."""
    confidence, right = arrays(pairs)
    error = calibration_error(confidence, right)
    bias = abs(confidence.mean() - right.mean())
    assert calibration_error(confidence, right, bins=1) == pytest.approx(bias, abs=1e-9)
    assert bias - 1e-9 <= error <= np.abs(confidence - right).mean() + 1e-9


@given(st.integers(1, 6), st.integers(0, 9999))
def test_equal_bins_of_distinct_confidences_are_those_of_the_textbook(each, seed):
    rng = np.random.default_rng(seed)
    confidence, right = rng.random(15 * each), rng.integers(0, 2, 15 * each).astype(float)
    order = np.argsort(confidence).reshape(15, each)
    by_hand = np.mean([abs(confidence[b].mean() - right[b].mean()) for b in order])
    assert calibration_error(confidence, right) == pytest.approx(by_hand)


def test_a_confidence_that_is_right_as_often_as_it_says_has_no_error():
    confidence = np.array([0.75] * 400 + [0.25] * 400)
    right = np.array(([1.0] * 300 + [0.0] * 100) + ([1.0] * 100 + [0.0] * 300))
    assert calibration_error(confidence, right) == pytest.approx(0, abs=1e-12)


@given(PAIRS)
def test_a_weight_of_two_is_the_example_twice(pairs):
    confidence, right = arrays(pairs)
    weight = np.array([2.0 if i % 2 else 1.0 for i in range(len(pairs))])
    twice = [i for i in range(len(pairs)) for _ in range(2 if i % 2 else 1)]
    expected = calibration_error(confidence[twice], right[twice])
    assert calibration_error(confidence, right, weight) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 50), st.integers(1, 50))
def test_two_groups_count_half_each(n, m):
    weight = half_and_half(np.zeros(n), np.zeros(m))
    assert weight[:n].sum() == pytest.approx(0.5)
    assert weight.sum() == pytest.approx(1)


def test_separation_is_the_share_of_pairs_in_order():
    inside, outside = np.array([0.9, 0.4]), np.array([0.5, 0.4, 0.1])
    assert separation(inside, outside) == pytest.approx((3 + 1 + 0.5) / 6)


@given(PAIRS)
def test_the_points_of_a_picture_keep_the_means(pairs):
    confidence, right = arrays(pairs)
    points = reliability(confidence, right, np.ones(len(pairs)), bins=1)
    assert points == [(pytest.approx(confidence.mean()), pytest.approx(right.mean()))]


def test_what_is_chosen_by_half_is_no_better_than_it_is():
    """Twenty that guess: their best seems good on what it was chosen on, and is not."""
    rng = np.random.default_rng(0)
    right_EN = (rng.random((20, 5000)) < 0.5).astype(float)
    assert right_EN.mean(axis=1).max() > 0.51
    assert abs(chosen_by_half(right_EN, "a task") - 0.5) < 0.02
    right_EN[7] = 1.0
    assert chosen_by_half(right_EN, "a task") == 1.0
