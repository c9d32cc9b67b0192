"""What is told of an expert's inputs: their mean, and where they vary beyond the metric."""

import pytest
import torch

from experts.artefacts import Artefacts
from experts.backbones.tiny import tiny_encoder
from routers.fitting.inputs import SPREADS, mean_and_spread, with_inputs
from routers.metric import Metric

WIDTH = 12


@pytest.fixture(scope="module")
def metric():
    return Metric.of(
        torch.zeros(1, WIDTH, dtype=torch.float64), 0.01 * torch.eye(WIDTH, dtype=torch.float64)
    )


def sample(count, seed=0):
    return 0.1 * torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_without_a_metric_there_is_the_mean_alone():
    feature_MF = sample(20)
    torch.testing.assert_close(mean_and_spread(feature_MF, None), feature_MF.mean(0, keepdim=True))


def test_the_direction_that_the_metric_misses_is_found(metric):
    """Variance 0.01 everywhere and 0.01 + 0.25 along one axis: a deviation of 0.5."""
    feature_MF = sample(4000)
    feature_MF[:, 3] += 0.5 * torch.randn(4000, generator=torch.Generator().manual_seed(5))
    inputs = mean_and_spread(feature_MF, metric)
    spread_F = inputs[1:].norm(dim=1).argmax()
    found_F = inputs[1 + spread_F]
    assert float(found_F[3].abs()) == pytest.approx(0.5, rel=0.1)
    others = inputs[1:].norm(dim=1).sort().values[:-1]
    assert (others < 0.05).all()


def test_what_varies_as_the_metric_expects_brings_next_to_nothing(metric):
    inputs = mean_and_spread(sample(5000), metric)
    assert len(inputs) <= 1 + SPREADS
    assert float(inputs[1:].norm(dim=1).max()) < 0.05


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_inputs_are_not_believed_far(metric, count):
    """Five of them span every direction they have by chance."""
    inputs = mean_and_spread(sample(count), metric)
    assert len(inputs) <= count
    if count > 1:
        assert (inputs[1:].norm(dim=1) < 0.2).all()


def test_artefacts_tell_of_inputs(metric):
    backbone = tiny_encoder()
    texts = ["A sky of rain.", "Sun again.", "Wind from the west."]
    told = with_inputs(Artefacts(backbone.fingerprint), backbone, texts, None)
    feature_BF = backbone.features(texts)
    assert told.seen == 3
    torch.testing.assert_close(told.inputs, feature_BF.mean(0, keepdim=True))
    assert told.centroids.shape == (4, backbone.width)
    again = Artefacts.from_tensors("", told.to_tensors())
    assert again.seen == 3
    assert torch.equal(again.inputs, told.inputs)
