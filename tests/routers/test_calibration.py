"""The constants as they are stored: today's form, and those that older versions wrote."""

import pytest
from pydantic import ValidationError

from routers.calibration import FORMER, USUAL, Calibration

OLD = {
    "version": "19f7991eba40",
    "views": {"instruction": 21.9, "choices": 12.8, "labels": 10.9, "input": 66.1},
    "floors": {"instruction": 0.3, "choices": 0.28, "labels": 0.33, "input": 0.73},
    "threshold": 0.95,
    "beta": 3.0,
    "gamma": 100.0,
    "tensors": "calibration-fc79.safetensors",
    "reference": {"input": {"count": 1, "edges": [], "shares": [1.0], "first": {"sst2": 1.0}}},
}
"""The form before libraries had a metric."""


def test_what_was_written_is_read():
    constants = Calibration(version="mine", confidence={"input": {"bias": 1.0}}, beta=30.0)
    assert Calibration.model_validate_json(constants.model_dump_json()) == constants


def test_constants_of_the_former_form_keep_their_weights():
    constants = Calibration.model_validate(OLD)
    assert constants.views == OLD["views"] | {"density": USUAL["density"]}
    assert (constants.version, constants.threshold) == ("19f7991eba40", 0.95)
    assert constants.tensors == OLD["tensors"]
    assert not constants.confidence
    assert not constants.reference, "another router was watched"
    assert set(OLD["views"]) == FORMER


@pytest.mark.parametrize(
    "changed",
    [
        {"views": {**OLD["views"], "density": 1.0}},
        {"views": {"input": 1.0}},
        {"views": [1.0]},
        {"ceilings": {}},
        {"gamma": "much"},
    ],
)
def test_what_is_of_neither_form_is_refused(changed):
    """Floors beside today's views too: nobody wrote that."""
    with pytest.raises(ValidationError):
        Calibration.model_validate({**OLD, **changed})


def test_under_another_embedder_nobody_counts_as_late():
    """What was set for late experts goes by a confidence that is no longer known."""
    fitted = Calibration(confidence={"input": {"bias": 1.0}}, fitted_on=("a",))
    assert fitted.under("one", "one")[0].joined_later("b")
    assert not fitted.under("another", "one")[0].joined_later("b")
