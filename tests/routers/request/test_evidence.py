"""The evidence router: its views, what it does not know, and that it compares no strings."""

from dataclasses import replace

import pytest
import torch

from experts.artefacts import Artefacts
from routers.calibration import VIEWS, Calibration
from routers.catalogue import Catalogue, Routed
from routers.index import UNSCORED
from routers.metric import FARTHEST, Metric
from routers.request import REQUEST_ROUTERS
from routers.request.evidence import fuse, view_scores
from routers.types import Features
from tests.routers.conftest import units

ROUTER = REQUEST_ROUTERS["evidence"]
CONSTANTS = Calibration(
    views={"instruction": 7.0, "choices": 5.0, "labels": 3.0, "input": 2.0, "density": 0.1}
)
INPUT, SENTENCE, CHOICES = units(1, 1)[0], units(1, 2)[0], units(4, 3)
PARTS = {
    "nothing": (Features(), set()),
    "input": (Features(INPUT), {"input"}),
    "instruction": (Features(instruction_D=SENTENCE), {"instruction"}),
    "choices": (Features(choice_CD=CHOICES), {"choices", "labels"}),
    "all": (Features(INPUT, SENTENCE, CHOICES), set(VIEWS) - {"density"}),
}


@pytest.mark.parametrize("part", PARTS)
def test_scores_are_probabilities_from_the_parts_that_are_there(part, catalogue_of):
    query, views = PARTS[part]
    scores = ROUTER.score(query, catalogue_of(6), CONSTANTS)
    assert set(scores.views) == views
    assert float(scores.score_E.sum()) == pytest.approx(1, abs=1e-6)
    assert (scores.score_E >= 0).all()
    if part == "nothing":
        torch.testing.assert_close(scores.score_E, torch.full((6,), 1 / 6).double())


def test_the_score_is_the_softmax_of_the_weighted_views(catalogue_of):
    query = PARTS["all"][0]
    scores = ROUTER.score(query, catalogue_of(6), CONSTANTS)
    logit_E = sum(CONSTANTS.views[name] * view_E for name, view_E in scores.views.items())
    torch.testing.assert_close(scores.score_E, logit_E.double().softmax(0))


def test_an_exact_description_wins(catalogue_of):
    catalogue = catalogue_of(6)
    own = catalogue.experts[4].artefacts
    query = Features(own.centroids[1], own.instructions[0], own.choices)
    assert int(ROUTER.score(query, catalogue, CONSTANTS).score_E.argmax()) == 4


@pytest.fixture
def measured(catalogue_of):
    """A catalogue with a metric; each expert's inputs lie around a mean of its own."""
    metric = Metric.of(torch.zeros(1, 32, dtype=torch.float64), 0.01 * torch.eye(32).double())
    means = units(5, 77, width=32)
    experts = [
        replace(e, gaussian=metric.gaussian(mean[None], 500))
        for e, mean in zip(catalogue_of(5).experts, means, strict=True)
    ]
    return Catalogue(experts, metric=metric), means


def test_where_there_is_a_metric_densities_count_and_centroids_do_not(measured):
    catalogue, means = measured
    misleading = catalogue.experts[1].artefacts.centroids[0]
    scores = ROUTER.score(Features(misleading, input_F=means[3]), catalogue, CONSTANTS)
    assert int(scores.views["input"].argmax()) == 1
    assert int(scores.score_E.argmax()) == 3
    expected_E = (CONSTANTS.views["density"] * scores.views["density"]).double().softmax(0)
    torch.testing.assert_close(scores.score_E, expected_E)


def test_a_shortlist_has_the_densities_of_the_whole(measured):
    catalogue, means = measured
    few = catalogue.among(["e03", "e01"])
    query = Features(input_F=means[0])
    of_all, of_few = catalogue.densities(query), few.densities(query)
    torch.testing.assert_close(of_few - of_few[0], of_all[[1, 3]] - of_all[1])


def test_an_expert_whose_inputs_are_not_known_is_scored_all_the_same(measured):
    catalogue, means = measured
    joined = replace(catalogue.experts[0], id="zz", gaussian=None)
    more = Catalogue([*catalogue.experts, joined], metric=catalogue.metric)
    scores = ROUTER.score(Features(INPUT, input_F=means[2]), more, CONSTANTS)
    assert scores.views["density"][5] == FARTHEST
    assert 0 < float(scores.score_E[5]) < float(scores.score_E[2])


def test_what_is_not_known_of_an_expert_counts_as_the_mean():
    views = {
        "input": torch.tensor([0.2, UNSCORED, 0.6]),
        "instruction": torch.tensor([UNSCORED, UNSCORED, UNSCORED]),
    }
    fused_E = fuse(views, {"input": 10.0, "instruction": 5.0})
    torch.testing.assert_close(fused_E, torch.tensor([2.0, 4.0, 6.0]))


def test_who_is_hopelessly_far_does_not_pull_down_what_is_not_known():
    near, far = (
        fuse({"density": torch.tensor([0.0, -10.0, worst, FARTHEST])}, {"density": 1.0})[3]
        for worst in (-60.0, -900.0)
    )
    assert float(near) == float(far) == pytest.approx(-50 / 3)


def test_experts_without_vectors_are_scored_all_the_same(catalogue_of):
    bare = Routed("zz", Artefacts("", centroids=INPUT[None]))
    catalogue = Catalogue([*catalogue_of(3).experts, bare])
    scores = ROUTER.score(PARTS["all"][0], catalogue, CONSTANTS)
    assert scores.views["instruction"][3] == UNSCORED
    assert float(scores.score_E.sum()) == pytest.approx(1)
    assert 0 < float(scores.score_E[3]) < 1


def test_an_empty_catalogue_has_no_scores():
    for query, _ in PARTS.values():
        scores = ROUTER.score(query, Catalogue([]), CONSTANTS)
        assert scores.score_E.shape == (0,)


def test_adding_an_expert_changes_the_logits_of_no_other(catalogue_of):
    query = PARTS["all"][0]
    few, more = (view_scores(query, catalogue_of(n)) for n in (4, 7))
    for name in few:
        torch.testing.assert_close(few[name], more[name][:4])


def test_routers_see_vectors_and_no_strings(encoder64):
    """Rename every label, keep its vector: nothing changes. Keep every label, rotate all vectors
    of the catalogue and not the query's: the expert that has the query's very strings loses."""
    words = {"a": ("sunny", "rainy"), "b": ("happy", "sad"), "c": ("launch", "landing")}
    embedded = {id: encoder64.embed(list(labels)).float() for id, labels in words.items()}
    query = Features(choice_CD=embedded["b"])

    def catalogue(vectors_of: dict[str, str]) -> Catalogue:
        return Catalogue(
            [
                Routed(id, Artefacts("", choices=embedded[vectors_of[id]]), forms=(1, 1))
                for id in words
            ],
        )

    own = ROUTER.score(query, catalogue({"a": "a", "b": "b", "c": "c"}), CONSTANTS).score_E
    rotated = ROUTER.score(query, catalogue({"a": "b", "b": "c", "c": "a"}), CONSTANTS).score_E
    assert int(own.argmax()) == 1
    assert int(rotated.argmax()) == 0
    torch.testing.assert_close(rotated, own[[1, 2, 0]])
