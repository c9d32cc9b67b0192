"""A library with other inputs, in memory: what it says, and that nothing else differs."""

from dataclasses import replace

import pytest
import torch

from experts.artefacts import Artefacts
from routers.fitting.variation import Variation
from routers.metric import LEAST_SEEN
from server.aside import Aside, Inputs


def features(seed):
    return torch.randn(LEAST_SEEN, 64, generator=torch.Generator().manual_seed(seed))


METRIC = Variation.of({f"task {seed}": features(seed) for seed in range(9)}).metric()


@pytest.fixture
def feature_MF():
    return features(0)


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
    built, others = engine.routing.current(), features(1)
    aside = Aside(built, {"weather": Inputs.of(others, METRIC)})
    mood, weather = aside.catalogue(METRIC).experts
    for expert, own_MF in ((mood, feature_MF), (weather, others)):
        mean_F = METRIC.whiten(own_MF).mean(dim=0)
        torch.testing.assert_close(expert.gaussian.mean.float(), mean_F, atol=1e-2, rtol=0)
    assert (mood.gaussian.mean - weather.gaussian.mean).abs().max() > 0.1
    for mine, theirs in zip((mood, weather), built.shortlist.catalogue.experts, strict=True):
        assert mine.artefacts is theirs.artefacts
        assert (mine.id, mine.version, mine.forms) == (theirs.id, theirs.version, theirs.forms)


def test_some_experts_are_told_of_anew(engine, feature_MF):
    told = {"weather": Inputs.of(feature_MF, METRIC), "mood": Inputs.of(feature_MF, METRIC)}
    aside = Aside(engine.routing.current(), told)
    changed = aside.catalogue(METRIC, {"mood": Inputs.of(features(1), METRIC)})
    for id, same in (("mood", False), ("weather", True)):
        before, now = (c.get(id).gaussian.packed for c in (aside.catalogue(METRIC), changed))
        assert torch.equal(before, now) == same


def test_without_a_metric_or_with_few_inputs_no_expert_is_told_of_by_density(engine, feature_MF):
    built = engine.routing.current()
    few = Aside(built, {"mood": Inputs.of(feature_MF[1:], METRIC)})
    many = Aside(built, {"mood": Inputs.of(feature_MF, METRIC)})
    assert many.catalogue(METRIC).get("mood").gaussian is not None
    assert few.catalogue(METRIC).get("mood").gaussian is None
    assert many.catalogue(None).get("mood").gaussian is None
