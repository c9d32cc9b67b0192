"""A library with other inputs, in memory: what it says, and that nothing else differs."""

from dataclasses import replace

import pytest
import torch

from experts.artefacts import Artefacts
from routers.metric import LEAST_SEEN, Metric
from server.aside import Aside, Inputs

METRIC = Metric(torch.zeros(64), torch.eye(64))


@pytest.fixture
def feature_MF():
    return torch.randn(LEAST_SEEN, 64, generator=torch.Generator().manual_seed(0))


def test_inputs_are_put_where_they_are_not(feature_MF):
    inputs = Inputs.of(feature_MF, METRIC)
    bare = Artefacts("an embedder", centroids=torch.ones(1, 32))
    told = inputs.put_into(bare)
    assert inputs.told_PF.dtype == torch.float16, "as they are stored"
    assert told.centroids is bare.centroids
    assert (told.embedder, told.seen) == ("an embedder", LEAST_SEEN)
    assert inputs.are_in(told)
    for other in (bare, replace(told, seen=1), replace(told, inputs=2 * told.inputs)):
        assert not inputs.are_in(other)
    assert not inputs.are_in(replace(told, inputs=told.inputs[:1]))


def test_what_is_not_told_anew_stays_as_it_is_stored(engine, feature_MF):
    inputs = Inputs.of(feature_MF, METRIC)
    entry = engine.library.get("mood")
    with engine.changing():
        engine.library.refit(entry, inputs.put_into(entry.read_artefacts()))
    built = engine.routing.current()
    told = Inputs(-inputs.told_PF, LEAST_SEEN)
    mood, weather = Aside(built, {"weather": told}).catalogue(METRIC).experts
    assert torch.equal(mood.gaussian.mean_F, METRIC.whiten(feature_MF).mean(dim=0).half())
    assert torch.equal(weather.gaussian.mean_F, -mood.gaussian.mean_F)
    for mine, theirs in zip((mood, weather), built.shortlist.catalogue.experts, strict=True):
        assert mine.artefacts is theirs.artefacts
        assert (mine.id, mine.version, mine.forms) == (theirs.id, theirs.version, theirs.forms)


def test_without_a_metric_or_with_few_inputs_no_expert_is_told_of_by_density(engine, feature_MF):
    built = engine.routing.current()
    few = Aside(built, {"mood": Inputs.of(feature_MF[1:], METRIC)})
    many = Aside(built, {"mood": Inputs.of(feature_MF, METRIC)})
    assert many.catalogue(METRIC).get("mood").gaussian is not None
    assert few.catalogue(METRIC).get("mood").gaussian is None
    assert many.catalogue(None).get("mood").gaussian is None
