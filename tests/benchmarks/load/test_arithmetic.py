"""What the figures of a load test mean."""

import math

import pytest

from benchmarks.load import arithmetic as of
from benchmarks.load.arithmetic import timeline


def second(at, answered=0, refused=0, failed=0, ms=10.0, name="/v1/decisions"):
    return {
        "second": at,
        "answered": answered,
        "refused": refused,
        "failed": failed,
        "latency": {
            "answered": {str(timeline.bucket(ms)): answered},
            "refused": {},
            "failed": {},
        },
        "names": {f"{name}|answered": answered, f"{name}|refused": refused},
    }


def point(users, rate):
    return of.Point(users, rate, rate, rate, 1.0, 2.0, 0)


@pytest.mark.parametrize(
    ("rates", "level"),
    [
        ([10], False),
        ([10, 20], False),
        ([10, 20, 40], False),
        ([10, 20, 20.5], False),  # the last two are 105% more than what was before
        ([10, 20, 20.5, 20.2], True),
        ([10, 20, 5, 20.5], True),  # a bad step alone ends nothing, two do
        ([10, 20, 5, 30], False),
        ([10, 20, 15, 12], True),
    ],
)
def test_the_search_ends_when_two_steps_bring_no_more(rates, level):
    points = [point(2**i, rate) for i, rate in enumerate(rates)]
    assert of.levelled(points) is level
    assert of.best(points).rate == max(rates)


def test_only_whole_seconds_count():
    seconds = [second(t, answered=1) for t in range(10)]
    assert [s["second"] for s in of.between(seconds, 2.5, 6.5)] == [3, 4, 5]


def test_totals_and_what_waited_for_the_engine():
    seconds = [second(0, 5, 2), second(1, 3, name="/v1/models"), second(2, 0, 4, 1)]
    assert [of.total(seconds, outcome) for outcome in timeline.OUTCOMES] == [8, 6, 1]
    assert of.queued(seconds) == 5
    assert of.queued(seconds, "refused") == 6


def test_percentiles_weigh_requests_not_seconds():
    seconds = [second(0, 99, ms=10), second(1, 1, ms=500)]
    assert of.percentile(seconds, 0.5) == pytest.approx(10, rel=0.02)
    assert of.percentile(seconds, 0.995) == pytest.approx(500, rel=0.02)


def test_the_tail_of_a_minute_knows_nothing_of_slower_ones():
    def minute(at, ms):
        return [second(at + t, 1, ms=2 * ms if t == 30 else ms) for t in range(60)]

    course = [*minute(0, 10), *minute(60, 100), *minute(120, 10)]
    assert of.percentile(course, 0.99) / of.percentile(course, 0.5) > 9
    assert of.minute_tail(course) == pytest.approx(2, rel=0.05)
    assert of.minute_tail(minute(0, 10)[:20]) == pytest.approx(1, rel=0.05)


def test_growth_compares_the_ends_and_passes_over_peaks():
    flat = [100.0] * 100
    assert of.growth(flat) == 0
    assert of.growth([*flat[:-3], 300, 300, 300]) == 0
    assert of.growth([100 + i / 10 for i in range(100)]) == pytest.approx(0.09, rel=0.02)


def test_recovery_is_the_first_of_calm_seconds():
    before, ended = 10.0, 100.0
    course = [
        second(99, 5, 50, ms=900),
        second(100, 5, 3, ms=900),
        second(101, 5, ms=300),
        second(102, 5, ms=12),
        second(103, 5, ms=40),  # not yet
        second(104, 5, ms=11),
        second(105, 5, ms=12),
        second(106, 5, ms=9),
    ]
    assert of.recovery(course, ended, before) == 4.0
    assert of.recovery(course[:-1], ended, before) is None
    assert of.recovery([second(t, 0) for t in range(100, 110)], ended, before) is None


def test_a_counter_rises_by_its_readings():
    seen = [{"time": t, "samples": 50.0 * t} | ({} if t % 2 else {"rss": 1.0}) for t in range(20)]
    assert of.counted(seen, "samples", 5, 15) == 50
    assert math.isnan(of.counted(seen, "samples", 5, 5.5))
    assert math.isnan(of.counted(seen, "queue", 5, 15))
