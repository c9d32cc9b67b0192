"""What follows from closed loops."""

from dataclasses import replace

import pytest

from benchmarks.capacity.costs import Costs, Step, fitted, mean_seconds, replicas, typical

COSTS = Costs(request=0.002, batch=0.006, sample=0.009, wake=0.001, idle=0.0004)


def step(connections, batch):
    """What a server with these costs would show."""
    cpu = COSTS.request + (COSTS.wake + COSTS.of_batch(batch)) / batch
    return Step(
        connections=connections,
        rate=1 / cpu,
        mean_ms=1e3 * (connections * cpu + COSTS.idle),
        p50_ms=1.0,
        p99_ms=1.0,
        batch=batch,
        engine=COSTS.of_batch(batch),
        cpu=cpu,
    )


def test_costs_are_found_again_from_what_they_do():
    found = fitted([step(1, 1), step(2, 2), step(8, 8)], score=1e-7, load=0.01)
    for name in ("request", "batch", "sample", "wake", "idle"):
        assert getattr(found, name) == pytest.approx(getattr(COSTS, name))
    assert (found.score, found.load) == (1e-7, 0.01)


def test_loops_that_overlap_with_a_batch_say_nothing_of_costs():
    within = [step(1, 1), step(4, 4)]
    overlapping = replace(step(64, 32), cpu=0.1, engine=9.0)
    assert fitted([*within, overlapping]) == fitted(within)


def test_a_loop_that_seems_to_wake_for_nothing_has_the_mean_of_what_it_costs():
    one, many = step(1, 1), step(8, 8)
    one, many = replace(one, cpu=one.engine + 0.001), replace(many, cpu=many.engine / 8 + 0.003)
    found = fitted([one, many])
    assert (found.request, found.wake) == (pytest.approx(0.002), 0.0)


def test_a_slower_machine_has_higher_costs():
    assert COSTS.at(0.5).per_request(batch=4) == pytest.approx(2 * COSTS.per_request(batch=4))


def test_of_each_step_the_round_in_the_middle_counts():
    """Whichever round that is: each of these three had one slow minute."""
    quick, middle, slow = (replace(step(1, 1), mean_ms=ms) for ms in (1.0, 2.0, 9.0))
    rounds = [[quick, slow], [middle, quick], [slow, middle]]
    assert typical(rounds) == [middle, middle]


def test_more_experts_make_each_sample_dearer():
    assert Costs(0, 0, 0.01, score=1e-6).beside(1000).sample == pytest.approx(0.011)


@pytest.mark.parametrize(
    ("rate", "misses", "count"),
    [(0.001, 0, 1), (63, 0, 1), (64, 0, 2), (6363, 0, 100), (6363, 1, 191)],
)
def test_replicas_take_their_share_of_a_rate(rate, misses, count):
    costs = Costs(request=0.001, wake=0.002, batch=0.006, sample=0.009, load=0.01)
    assert replicas(rate, costs, misses=misses, load_share=0.7) == count


def test_a_lone_request_takes_its_own_time_and_too_many_take_for_ever():
    alone = COSTS.request + COSTS.wake + COSTS.batch + COSTS.sample + COSTS.idle
    assert mean_seconds(0.001, COSTS) == pytest.approx(alone, rel=1e-3)
    assert mean_seconds(1 / COSTS.per_request(), COSTS) == float("inf")
    waits = [mean_seconds(rate, COSTS) for rate in range(1, 90)]
    assert waits == sorted(waits)
