import json
import time

import pytest

from benchmarks.figures import at_least, at_most, reported, save
from benchmarks.timing import Times, take_turns


@pytest.mark.parametrize(
    ("figure", "holds"),
    [
        (at_most("pass", 1.25, 1.25), True),
        (at_most("pass", 1.2501, 1.25), False),
        (at_least("share", 0.85, 0.85), True),
        (at_least("share", 0.8499, 0.85), False),
    ],
)
def test_a_target_holds_up_to_its_limit_and_not_past_it(figure, holds):
    assert figure.holds is holds


def test_a_result_is_a_list_of_figures_with_their_targets(tmp_path):
    path = save("speed", [at_most("pass", 1.23456, 1.25), reported("ms", 7.0)], tmp_path / "new")
    assert path.name == "speed.json"
    assert json.loads(path.read_text()) == [
        {"figure": "pass", "value": 1.235, "target": "<= 1.25", "holds": True},
        {"figure": "ms", "value": 7.0, "target": None, "holds": None},
    ]


def test_a_ratio_is_taken_within_a_round():
    # The machine slows down threefold in the second round: the ratio does not see it.
    times = Times({"ours": [2.0, 6.0, 2.0], "bare": [1.0, 3.0, 1.0]})
    assert times.ratio("ours", "bare") == 2.0
    assert times.median("ours") == 2.0


def test_cases_take_turns_and_the_first_round_does_not_count():
    calls = []
    cases = {"a": lambda: calls.append("a"), "b": lambda: (calls.append("b"), time.sleep(0.002))}
    times = take_turns(cases, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert len(times.seconds["a"]) == 3
    assert times.ratio("b", "a") > 1
