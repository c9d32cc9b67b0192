"""Rates by hand on a clock of the test's own; what is admitted at one time; debts of tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyrate_limiter import AbstractClock

from server.access.keys import Limits, make_key
from server.access.limits import Bucket, Meter, Meters
from server.errors import RateReached, TooManyAtOnce


class Clock(AbstractClock):
    def __init__(self) -> None:
        self.milliseconds = 0

    def now(self) -> int:
        return self.milliseconds


def spent(bucket: Bucket) -> bool:
    try:
        bucket.require(1)
    except RateReached:
        return False
    return True


def test_a_minutes_worth_at_once_and_then_as_it_fills():
    clock = Clock()
    bucket = Bucket(6, "requests", clock)
    assert [spent(bucket) for _ in range(7)] == [True] * 6 + [False]
    clock.milliseconds = 9_000
    with pytest.raises(RateReached, match="6 requests a minute") as caught:
        bucket.require(1)
    assert caught.value.retry_after == 1  # ten seconds make one, nine have passed
    clock.milliseconds = 10_000
    assert spent(bucket)
    assert not spent(bucket)


@given(
    st.integers(1, 30),
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 8)), min_size=1, max_size=40),
)
def test_no_more_is_ever_spent_than_was_there_and_a_told_wait_is_enough(limit, steps):
    clock, taken = Clock(), 0
    bucket = Bucket(limit, "requests", clock)
    for passed, tries in steps:
        clock.milliseconds += passed
        taken += sum(spent(bucket) for _ in range(tries))
        assert taken <= limit + limit * clock.milliseconds / 60_000 + 1e-6
    try:
        bucket.require(1)
    except RateReached as error:
        clock.milliseconds += error.retry_after * 1000
        bucket.require(1)


def test_tokens_used_up_are_paid_before_anything_else_however_many():
    clock = Clock()
    bucket = Bucket(100, "tokens", clock)
    bucket.require(0)
    bucket.owe(250)
    assert bucket.left == 0
    for minute in (0, 1):  # 100 at once, 100 a minute later, 50 in half a minute
        clock.milliseconds = minute * 60_000
        with pytest.raises(RateReached):
            bucket.require(0)
    clock.milliseconds = 90_000
    bucket.require(0)
    assert bucket.left == 0
    clock.milliseconds = 120_000
    assert bucket.left == 50


def test_so_many_at_one_time_and_no_more():
    meter = Meter(Limits(concurrent=2, requests_per_minute=10))
    with meter.admitted(), meter.admitted():
        with pytest.raises(TooManyAtOnce, match="2 requests"), meter.admitted():
            pytest.fail("a third was let in")
        assert meter.requests is not None
        assert meter.requests.left == 8  # who is refused has spent nothing
    with pytest.raises(ZeroDivisionError), meter.admitted():
        raise ZeroDivisionError
    assert meter.running == 0


def test_a_meter_stays_with_its_key_until_its_limits_change():
    key, _ = make_key("team", ["infer"], limits=Limits(requests_per_minute=2))
    meters = Meters()
    first = meters.of(key)
    assert meters.of(key.model_copy(update={"tags": frozenset({"new"})})) is first
    other = meters.of(key.model_copy(update={"limits": Limits(requests_per_minute=3)}))
    assert other is not first


def test_what_is_left_is_told_as_openai_tells_it():
    meter = Meter(Limits(requests_per_minute=5, tokens_per_minute=50))
    with meter.admitted():
        pass
    assert meter.headers() == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "50",
    }
    assert not Meter(Limits(concurrent=1)).metered
