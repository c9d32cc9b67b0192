"""Drift: told where there is some, and not where chance alone moved the shares."""

import math
import random

import pytest

from experts.errors import CorruptExpert
from routers.calibration import Calibration, Reference
from server.evidence.drift import by_chance, compare, read_calibration, shift, stability
from server.evidence.reader import Row

MIX = {"a": 0.5, "b": 0.3, "c": 0.2}
EDGES, SHARES = (0.2, 0.4, 0.6, 0.8), (0.2,) * 5
REFERENCE = Reference(count=1000, edges=EDGES, shares=SHARES, first=MIX)
CALIBRATION = Calibration(version="v", reference={"choices": REFERENCE})


def row(confidence, expert="a", **more):
    given = {"router": "sailplane", "sees": "choices", "calibration": "v", **more}
    return Row(time=0.0, experts=((expert, 1.0),), confidence=confidence, **given)


def drawn(count, lowest=0.0, mix=MIX, seed=0):
    rng = random.Random(seed)
    experts = rng.choices(list(mix), list(mix.values()), k=count)
    return [row(rng.uniform(lowest, 1), expert) for expert in experts]


def test_the_index_by_hand():
    found = stability([0.5, 0.5], [0.25, 0.75], 100, 100)
    assert found == pytest.approx(0.25 * math.log(2) - 0.25 * math.log(2 / 3))
    assert stability([0.3, 0.7], [0.3, 0.7], 10, 10) == 0
    assert math.isfinite(stability([1.0, 0.0], [0.0, 1.0], 100, 100))


def test_an_unchanged_stream_is_stable():
    (drift,) = compare(drawn(1000), CALIBRATION).drifts
    assert (drift.confidence.reading, drift.experts.reading) == ("stable", "stable")
    assert drift.ks < 0.06


def test_chance_is_exceeded_once_in_twenty():
    above = 0
    for seed in range(400):
        (drift,) = compare(drawn(200, seed=seed), CALIBRATION).drifts
        above += drift.experts.psi > by_chance(3, 200, 10**9)  # the reference itself is exact here
    assert 8 <= above <= 34


def test_a_small_log_is_not_called_drifted_by_chance():
    shares = {str(i): 1 / 40 for i in range(40)}
    rng = random.Random(1)
    now = dict.fromkeys(shares, 0.0)
    for id in rng.choices(list(shares), k=60):
        now[id] += 1 / 60
    found = shift(now, shares, 60, 1000)
    assert found.psi > 0.25
    assert found.reading == "stable"


def test_lower_confidence_and_another_mix_are_told():
    sure = compare(drawn(500, lowest=0.5), CALIBRATION).drifts[0]
    assert (sure.confidence.reading, sure.tends) == ("drifted", "higher")
    assert sure.ks == pytest.approx(0.4, abs=0.01)
    unsure = compare([row(0.1)] * 500, CALIBRATION).drifts[0]
    assert (unsure.confidence.reading, unsure.tends, unsure.ks) == ("drifted", "lower", 0.8)
    newcomer = compare(drawn(500, mix={"a": 0.5, "new": 0.5}), CALIBRATION).drifts[0]
    assert newcomer.experts.reading == "drifted"
    assert newcomer.experts.reference["new"] == 0


def test_what_cannot_be_compared_is_left_out_and_counted():
    others = [
        row(0.5, router="dam"), row(0.5, calibration="older"), row(0.5, sees="input"), row(None),
    ]  # fmt: skip
    found = compare([*others, row(0.5)], CALIBRATION)
    assert (found.compared, found.left_out) == (1, 4)
    assert found.drifts[0].confidence.reading == "too few"


def test_a_confidence_on_an_edge_belongs_to_the_bin_above():
    assert [REFERENCE.bin_of(c) for c in (0.0, 0.19, 0.2, 0.1999, 1.0)] == [0, 0, 1, 1, 4]


@pytest.mark.parametrize("change", [{"shares": (0.5, 0.5)}, {"edges": (0.2, 0.6, 0.4, 0.8)}])
def test_a_reference_that_nobody_wrote_is_refused(tmp_path, change):
    assert read_calibration(tmp_path) is None
    damaged = REFERENCE.model_copy(update=change)
    stored = CALIBRATION.model_copy(update={"reference": {"choices": damaged}})
    (tmp_path / "calibration.json").write_text(stored.model_dump_json(warnings=False))
    with pytest.raises(CorruptExpert, match="fit --calibrate"):
        read_calibration(tmp_path)
