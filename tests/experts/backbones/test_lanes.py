"""Several passes at once give what one after the other gives, and share the weights."""

import threading
import time

import pytest
import torch

from experts.backbones.lanes import at_least
from experts.backbones.tiny import tiny_encoder
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts

TEXTS = ["a", "some words", "a much longer text than the others", "b", "c c c", "the last one"]


@pytest.fixture
def wide():
    threads = torch.get_num_threads()
    encoder = tiny_encoder(dtype=torch.float64)
    encoder.widen(3)
    yield encoder
    torch.set_num_threads(threads)


def test_three_lanes_give_what_one_gives(wide, make_expert):
    alone = tiny_encoder(dtype=torch.float64)
    stack = stack_experts([make_expert("lora", "x"), make_expert("lora", "y")])
    rows = alone.tokenize(TEXTS)
    mixes = [RowMix.of({"x": 1.0}), RowMix(), RowMix.of({"x": 0.5, "y": 0.5})] * 2
    with torch.inference_mode():
        mix = build_mix(mixes, [stack])
        expected, got = alone.encode(rows, mix), wide.encode(rows, mix)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)
        torch.testing.assert_close(wide.features(TEXTS), alone.features(TEXTS), rtol=0, atol=1e-9)


def test_lanes_share_the_weights_and_not_the_mix(wide):
    lanes = [wide.lanes._free.get() for _ in range(wide.lanes.count)]
    pointers = {p.data_ptr() for lane in lanes for p in lane.model.parameters()}
    assert len(pointers) == sum(1 for _ in lanes[0].model.parameters())
    assert len({id(lane.hooks) for lane in lanes}) == 3
    with lanes[0].hooks.mixing(None), lanes[1].hooks.mixing(None):  # no nesting: two lanes
        assert lanes[0].model is not lanes[1].model


def test_an_error_in_a_pass_reaches_the_caller_and_frees_the_lane(wide):
    def fail(lane, job):
        raise ValueError(f"job {job[0]}")

    for _ in range(4):
        with pytest.raises(ValueError, match="job"):
            wide.lanes.map(fail, [[0], [1], [2]])
    assert wide.embed(TEXTS).isfinite().all()


@pytest.mark.parametrize(
    ("jobs", "count"), [([[0, 1, 2, 3]], 2), ([[0], [1, 2, 3]], 4), ([[0]], 3)]
)
def test_splitting_keeps_every_row_once(jobs, count):
    split = at_least(jobs, count)
    assert sorted(i for job in split for i in job) == sorted(i for job in jobs for i in job)
    rows = sum(map(len, jobs))
    assert len(split) == max(len(jobs), min(count, rows))


def test_long_work_goes_on_aside_and_may_be_stopped_between_passes(wide):
    """It shares the weights, takes no lane from requests, and waits for no lock of theirs."""
    passes = []
    aside = wide.aside(lambda: passes.append(len(passes)))
    shared = {p.data_ptr() for p in wide.model.parameters()}
    assert {p.data_ptr() for p in aside.lanes.first.model.parameters()} == shared
    with wide.hooks.mixing(None):  # would not end if both had the same lock
        got = aside.embed(TEXTS)
    torch.testing.assert_close(got, wide.embed(TEXTS), rtol=0, atol=1e-9)
    assert passes
    assert aside.lanes.count == 1

    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        wide.aside(stop).features(TEXTS)
    torch.testing.assert_close(wide.embed(TEXTS), got, rtol=0, atol=1e-9)


def test_jobs_side_by_side_have_all_ended_when_one_has_failed() -> None:
    backbone = tiny_encoder()
    backbone.widen(2)
    begun, ended = threading.Event(), []

    def fails() -> None:
        begun.wait(5)
        raise ValueError("no")

    def goes_on() -> None:
        begun.set()
        time.sleep(0.2)
        ended.append(True)

    with pytest.raises(ValueError, match="no"):
        backbone.lanes.together([fails, goes_on])
    assert ended
