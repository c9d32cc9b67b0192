"""Statistics against values worked out elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.evidence.figures import accuracy, calibration_error, quantile, wilson


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)  # fmt: skip
def test_wilson_as_newcombe_1998_has_it(right, count, low, high):
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)


@given(count=st.integers(1, 500), share=st.floats(0, 1))
def test_an_interval_holds_its_share_and_stays_within_bounds(count, share):
    right = round(share * count)
    low, high = wilson(right, count)
    assert 0 <= low <= right / count <= high <= 1


def test_no_feedback_is_no_accuracy():
    assert accuracy([None, None]).share is None
    found = accuracy([True, None, False, True])
    assert (found.judged, found.right, found.share) == (3, 2, pytest.approx(2 / 3))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 1))
def test_quantiles_are_numpys(values, q):
    assert quantile(sorted(values), q) == pytest.approx(np.quantile(values, q), abs=1e-6)


def test_calibration_error_by_hand():
    # Bin 0.6-0.7: two answers, one right: |0.65 - 0.5|. Bin 0.9-1.0: one, right: |1 - 0.95|.
    answers = [(0.62, True), (0.68, False), (0.95, True)]
    assert calibration_error(answers) == pytest.approx((2 * 0.15 + 0.05) / 3)
    assert calibration_error([(1.0, True)] * 3) == 0
    assert calibration_error([]) is None
