"""Margins: a fall beyond them is told, a gain or a little less is not."""

import json

import pytest

from benchmarks.quality.quick import MARGINS, QUICK, QUICK_ROWS, check, means_of
from benchmarks.quality.run import Order, run
from tests.benchmarks.quality.conftest import rows


@pytest.fixture(scope="module")
def found(bench):
    return run(bench, Order(rows("base", "dam"), ("input",), ("in",), limit=3,
                            timed=False, studies=False))  # fmt: skip


def test_what_was_accepted_passes_and_less_does_not(found, tmp_path):
    path = tmp_path / "margins.json"
    assert "accept" in check(found, path=path)[0]
    assert check(found, accept=True, path=path) == []
    assert check(found, path=path) == []
    kept = json.loads(path.read_text())
    assert set(kept["means"]) == {"held in/input/base", "held in/input/dam"}
    path.write_text(json.dumps({"margin": 0.1, "means": {
        "held in/input/base": kept["means"]["held in/input/base"] + 0.05,
        "held in/input/dam": kept["means"]["held in/input/dam"] + 0.15,
        "held in/input/arrow": 0.5,
    }}))  # fmt: skip
    fell, missing = check(found, path=path)
    assert fell.startswith("held in/input/dam fell")
    assert missing.startswith("held in/input/arrow was not measured")


def test_means_are_those_of_the_summary(found):
    means = means_of(found)
    assert all(0 <= mean <= 1 for mean in means.values())
    assert len(means) == 2


def test_the_kept_margins_cover_the_whole_quick_run():
    kept = json.loads(MARGINS.read_text())["means"]
    expected = {f"{group}/{condition}/{row}" for group in ("held in", "left out")
                for condition in QUICK.conditions for row in QUICK_ROWS}  # fmt: skip
    assert set(kept) == expected
