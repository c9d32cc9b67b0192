"""The simulation, against what is known without it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.capacity.costs import Costs
from benchmarks.capacity.fleet import Fleet, closed_loop, given_arrivals, random_arrivals

COSTS = Costs(request=0.002, batch=0.006, sample=0.009)


def test_alone_each_request_takes_the_sum_of_its_costs():
    seen = closed_loop(Fleet(replace(COSTS, idle=0.001, wake=0.002)), 1, seconds=30)
    assert seen.percentile(0) == pytest.approx(0.020)
    assert seen.percentile(1) == pytest.approx(0.020)
    assert seen.rate == pytest.approx(1 / 0.020, rel=0.01)
    assert seen.batch == 1


def test_the_loop_wakes_once_for_what_comes_together():
    # Of 0.8 s to wake, half to read both and half to answer both; 0.1 s for each of the four.
    fleet = Fleet(Costs(request=0.2, batch=0.0, sample=0.0, wake=0.8))
    seen = given_arrivals(fleet, [0.0, 100.0, 200.0, 200.01, 300.0])
    assert seen.latencies == pytest.approx([1.0, 1.1, 1.19], abs=0.01)


@pytest.mark.parametrize("connections", [1, 2, 8, 32])
def test_a_loop_within_a_batch_costs_what_was_taken_from_it(connections):
    costs = replace(COSTS, wake=0.002)
    seen = closed_loop(Fleet(costs), connections, seconds=120)
    shared = (costs.wake + costs.batch) / connections
    assert seen.rate == pytest.approx(1 / (costs.request + costs.sample + shared), rel=0.01)


def test_full_batches_cost_what_the_formula_says():
    seen = closed_loop(Fleet(COSTS), 64, seconds=120)
    assert seen.batch == pytest.approx(32, rel=0.01)
    assert seen.rate == pytest.approx(1 / (0.002 + 0.009 + 0.006 / 32), rel=0.02)


def test_single_requests_at_random_wait_as_queueing_theory_says():
    # Batches of one and nothing beside the engine: M/D/1, whose mean wait is rho * D / 2(1 - rho).
    fleet = Fleet(Costs(request=0.0, batch=0.0, sample=0.01), max_batch=1)
    seen = random_arrivals(fleet, rate=70, seconds=3000)
    assert seen.mean == pytest.approx(0.01 + 0.7 * 0.01 / (2 * 0.3), rel=0.05)


def test_a_core_is_shared_by_loop_and_engine():
    # All of the time goes to one or the other: two replicas' worth of work takes twice as long.
    light = closed_loop(Fleet(Costs(0.0, 0.0, 0.01)), 32, seconds=60)
    heavy = closed_loop(Fleet(Costs(0.01, 0.0, 0.01)), 32, seconds=60)
    assert light.rate == pytest.approx(2 * heavy.rate, rel=0.02)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 4), st.integers(1, 40), st.integers(0, 99))
def test_a_closed_loop_loses_nobody(connections, replicas, most, seed):
    fleet = Fleet(COSTS, replicas, max_batch=most)
    seen = closed_loop(fleet, connections, seconds=20, seed=seed)
    # Little's law: as many are under way as there are connections.
    assert seen.rate * seen.mean == pytest.approx(connections, rel=0.1)
    assert 1 <= seen.batch <= most


def test_the_one_of_two_with_fewer_is_better_than_any():
    waits = {
        balancing: random_arrivals(
            Fleet(COSTS, replicas=20, balancing=balancing), 1400, 60
        ).percentile(0.99)
        for balancing in ("any", "fewer")
    }
    assert waits["fewer"] < 0.6 * waits["any"]


def test_what_fits_in_memory_is_never_missed():
    fleet = Fleet(COSTS, replicas=3, experts=50, held=50)
    assert random_arrivals(fleet, 100, 30).misses == 0


def test_misses_are_those_of_the_least_recently_used():
    # Ten equally popular experts and room for five: half of what is asked for is not there.
    fleet = Fleet(replace(COSTS, load=0.001), max_batch=1, experts=10, held=5, zipf=0.0)
    assert random_arrivals(fleet, 20, 1000).misses == pytest.approx(0.5, rel=0.05)


def test_sent_to_who_holds_it_fewer_experts_are_missed():
    misses = {
        balancing: random_arrivals(
            Fleet(COSTS, replicas=10, experts=200, held=40, balancing=balancing), 500, 60
        ).misses
        for balancing in ("fewer", "holder")
    }
    assert misses["holder"] < 0.1 * misses["fewer"]


def test_the_same_seed_is_the_same_run():
    fleet = Fleet(COSTS, replicas=4)
    assert random_arrivals(fleet, 200, 20, seed=3) == random_arrivals(fleet, 200, 20, seed=3)
