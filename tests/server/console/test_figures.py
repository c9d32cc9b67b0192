"""Rates, means and quantiles between two looks at `/metrics`."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.console.figures import History, Look, Span, figures


@pytest.fixture
def server():
    registry = CollectorRegistry()

    class Server:
        asked = Counter("sailplane_requests", "Asked.", ["route", "status"], registry=registry)
        queue = Gauge("sailplane_queue_samples", "Waiting.", registry=registry)
        took = Histogram(
            "sailplane_batch_seconds", "Took.", buckets=(0.1, 0.2, 0.4), registry=registry
        )
        other = Counter("python_gc", "Not ours.", registry=registry)

        def look(self, at, without=()):
            return Look.of(at, generate_latest(registry).decode(), without)

    return Server()


def test_a_rate_is_a_rise_by_the_second(server):
    before = server.look(10.0)
    server.asked.labels("/v1/decisions", "200").inc(30)
    server.asked.labels("/v1/decisions", "503").inc(10)
    server.asked.labels("/v1/route", "200").inc(2)
    server.queue.set(7)
    span = Span(before, server.look(20.0))
    assert span.rate("requests_total") == 4.2
    assert span.rate("requests_total", route="/v1/decisions") == 4.0
    assert span.rises("requests_total", "status") == {"200": 32, "503": 10}
    assert span.after.value("queue_samples") == 7
    assert span.after.by("requests_total", "route") == {"/v1/decisions": 40, "/v1/route": 2}


def test_some_routes_may_be_left_out(server):
    server.asked.labels("/v1/decisions", "200").inc(3)
    server.asked.labels("/metrics", "200").inc(5)
    look = server.look(0, without={"/metrics"})
    assert look.by("requests_total", "route") == {"/v1/decisions": 3}
    assert look.value("requests_total") == 3


def test_what_is_not_ours_is_passed_by(server):
    server.other.inc()
    assert all("gc" not in name for name in server.look(0).samples)


def test_a_histogram_tells_its_mean_and_quantiles(server):
    server.took.observe(5.0)
    before = server.look(0)
    for seconds in (0.05, 0.15, 0.15, 0.3):
        server.took.observe(seconds)
    span = Span(before, server.look(1))
    assert span.mean("batch_seconds") == pytest.approx(0.65 / 4)
    # As histogram_quantile(0.5, rate(...)): two of four are within the second bucket's half.
    assert span.quantile("batch_seconds", 0.5) == pytest.approx(0.1 + 0.1 * (2 - 1) / 2)
    assert span.quantile("batch_seconds", 1.0) == pytest.approx(0.4)
    server.took.observe(9.0)
    assert Span(before, server.look(2)).quantile("batch_seconds", 1.0) == pytest.approx(0.4)


def test_nothing_was_counted(server):
    look = server.look(0)
    span = Span(look, look)
    assert span.mean("batch_seconds") is None
    assert span.quantile("batch_seconds", 0.5) is None
    assert span.rate("requests_total") == 0
    assert span.mean("no_such_thing") is None


def test_a_server_that_restarted_counts_from_nothing(server):
    server.asked.labels("/v1/route", "200").inc(100)
    before = server.look(0)
    after = Look(1.0, {"requests_total": [({"status": "200"}, 3.0)]})
    assert Span(before, after).rise("requests_total") == 3
    assert Span(before, after).rises("requests_total", "status") == {"200": 3}


def test_history_keeps_the_newest_and_of_each_its_numbers_alone(server):
    history = History(most=3)
    assert history.add(server.look(0)) is None
    assert history.lines("rates") == {}
    for at in range(1, 6):
        server.asked.labels("/v1/route", "200").inc()
        server.took.observe(0.15)
        found = history.add(server.look(at))
    assert [f.at for f in history.kept] == [3, 4, 5]
    assert found.cards["queue"] == "0"
    assert found.cards["p50"] == "-"
    points = history.lines("rates")["requests"]
    assert [at for at, _ in points] == [-2, -1, 0]


def test_of_many_lines_the_greatest_are_shown_and_gaps_are_nothing(server):
    history = History()
    chosen = Counter(
        "sailplane_experts_selected", "C.", ["expert"], registry=(r := CollectorRegistry())
    )
    for at in range(4):
        for n in range(9):
            chosen.labels(f"e{n}").inc(n * (at != 2))
        history.add(Look.of(at, generate_latest(r).decode()))
    lines = history.lines("experts", most=3)
    assert list(lines) == ["e6", "e7", "e8"]
    assert lines["e8"] == [(-2, 8.0), (-1, 0.0), (0, 8.0)]


def test_after_an_absence_history_begins_anew_and_forgets_what_is_long_ago(server):
    history = History(longest=100.0)
    looks = [Look(float(at), {}) for at in (0, 2, 4, 60, 62, 103)]
    found = [history.add(look) is not None for look in looks]
    assert found == [False, True, True, False, True, False]
    assert [one.at for one in history.kept] == [4.0, 62.0]


def test_a_writer_has_charts_of_its_own(server):
    look, later = server.look(0), server.look(1)
    assert "tokens" not in figures(Span(look, later)).charts
    assert {"tokens", "first"} <= set(figures(Span(look, later), writes=True).charts)


def test_the_look_itself_is_not_in_flight():
    before, after = Look(0, {}), Look(1, {"requests_in_flight": [({}, 3.0)]})
    assert figures(Span(before, after)).cards["in flight"] == "2"
