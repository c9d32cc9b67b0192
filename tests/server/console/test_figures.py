"""Rates, means and quantiles between two looks at `/metrics`."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from server.console.figures import History, Look, Span


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

        def look(self, at):
            return Look.of(at, generate_latest(registry).decode())

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
    look = server.look(0).without("route", {"/metrics"})
    assert look.by("requests_total", "route") == {"/v1/decisions": 3}
    assert look.value("queue_samples") == 0


def test_what_is_not_ours_is_passed_by(server):
    server.other.inc()
    assert all("gc" not in name for name, _ in server.look(0).values)


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
    after = Look(1.0, {key: 3.0 for key in before.values if key[0] == "requests_total"})
    assert Span(before, after).rise("requests_total") == 3
    assert Span(before, after).rises("requests_total", "status") == {"200": 3}


def test_history_keeps_the_newest(server):
    history = History(most=3)
    assert history.last is None
    for at in range(5):
        history.add(server.look(at))
    assert [look.at for look in history.looks] == [2, 3, 4]
    assert [span.seconds for span in history.spans()] == [1, 1]
    assert history.last.after.at == 4
