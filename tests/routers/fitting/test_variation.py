"""The metric of a library's tasks, and the same without one of them."""

import torch

from routers.fitting.variation import Variation
from routers.metric import Metric


def features(scale, seed, count=400):
    return scale * torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) + seed


def test_every_task_counts_the_same_however_many_inputs_it_has():
    given = {"a": features(1.0, 0), "b": features(3.0, 1, count=4000)}
    metric = Variation.of(given).metric()
    covariance = sum(torch.cov(f.T.double(), correction=0) for f in given.values()) / 2
    expected = Metric.of(torch.stack([f.double().mean(0) for f in given.values()]), covariance)
    torch.testing.assert_close(metric.whitening_FF, expected.whitening_FF)
    torch.testing.assert_close(metric.centre_F, expected.centre_F)
    torch.testing.assert_close(metric.between_RF, expected.between_RF)


def test_a_task_left_out_leaves_no_trace():
    rest = {"a": features(1.0, 0), "b": features(2.0, 1)}
    without = Variation.of({**rest, "c": features(9.0, 2)}).metric(without=("c",))
    alone = Variation.of(rest).metric()
    assert torch.equal(without.whitening_FF, alone.whitening_FF)
    assert torch.equal(without.centre_F, alone.centre_F)
    assert torch.equal(without.between_RF, alone.between_RF)


def test_of_one_task_alone_nothing_can_be_left_out():
    only = Variation.of({"a": features(1.0, 0)})
    assert torch.equal(only.metric(without=("a",)).whitening_FF, only.metric().whitening_FF)


def test_the_nearest_task_is_that_of_inputs_most_alike():
    given = {"a": features(1.0, 0), "b": features(1.0, 1), "c": features(1.0, 5)}
    variation = Variation.of(given)
    assert [variation.nearest(id) for id in given] == ["b", "a", "b"]
    assert Variation.of({"a": given["a"]}).nearest("a") is None


def test_near_is_by_the_metric_and_not_by_plain_distance():
    """All tasks vary widely along the first axis, so to be apart there says little."""
    wide = torch.tensor([50.0, 1.0, 1.0, 1.0, 1.0])
    along, across = torch.zeros(5), torch.zeros(5)
    along[0], across[1] = 10.0, 5.0
    given = {
        id: features(1.0, seed) * wide - seed * wide + shift
        for seed, (id, shift) in enumerate({"a": 0, "b": along, "c": across}.items())
    }
    assert Variation.of(given).nearest("a") == "b"
