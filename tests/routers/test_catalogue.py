"""The library as routers see it, and how choices are compared with label sets."""

import pytest
import torch

from experts.artefacts import Artefacts
from routers.catalogue import Catalogue, LabelIndex, Routed
from tests.routers.conftest import units


def slow_scores(experts, choice_CD):
    """Choice by choice and label by label."""
    forward, backward = [], []
    for expert in experts:
        vectors = expert.artefacts.choices
        if vectors is None:
            forward.append(-1.0)
            backward.append(-1.0)
            continue
        best = [max(float(c @ v) for v in vectors) for c in choice_CD]
        forward.append(sum(best) / len(best))
        at, per_label = 0, []
        for forms in expert.forms:
            label = vectors[at : at + forms]
            per_label.append(max(float(c @ v) for c in choice_CD for v in label))
            at += forms
        backward.append(sum(per_label) / len(per_label) if per_label else forward[-1])
    return torch.tensor(forward), torch.tensor(backward)


def routed(id: str, count: int | None, forms: tuple[int, ...] = ()) -> Routed:
    choices = None if count is None else units(count, sum(map(ord, id)))
    return Routed(id, Artefacts("e", choices=choices), forms=forms)


MIXED = (routed("a", 6, (1, 2, 3)), routed("b", 4), routed("c", None), routed("d", 2, (1, 1)))


@pytest.mark.parametrize("choices", [1, 2, 9])
@pytest.mark.parametrize("experts", [MIXED, MIXED[1:2], MIXED[2:3], MIXED[::2]])
def test_label_scores_are_those_of_the_slow_twin(experts, choices):
    choice_CD = units(choices, 5)
    got = LabelIndex(experts).scores(choice_CD)
    for fast_E, slow_E in zip(got, slow_scores(experts, choice_CD), strict=True):
        torch.testing.assert_close(fast_E, slow_E, atol=1e-6, rtol=0)


def test_the_order_of_the_choices_says_nothing():
    choice_CD = units(7, 3)
    index = LabelIndex(MIXED)
    shuffled = index.scores(choice_CD[torch.randperm(7)])
    for one_E, other_E in zip(index.scores(choice_CD), shuffled, strict=True):
        torch.testing.assert_close(one_E, other_E)


def test_experts_stand_in_the_order_of_their_ids(catalogue_of):
    experts = catalogue_of(4).experts
    again = Catalogue(reversed(experts))
    assert again.ids == ("e00", "e01", "e02", "e03")
    assert [again.position(id) for id in again.ids] == [0, 1, 2, 3]
    with pytest.raises(KeyError):
        again.position("e99")


def test_one_mean_and_several_centroids(catalogue_of):
    catalogue = catalogue_of(3)
    query_1D = units(1, 42)
    means_E = catalogue.means.best(query_1D)[0]
    for expert, mean, near in zip(
        catalogue.experts, means_E, catalogue.centroids.best(query_1D)[0], strict=True
    ):
        cosines_M = expert.artefacts.centroids @ query_1D[0]
        torch.testing.assert_close(mean, cosines_M[0])
        torch.testing.assert_close(near, cosines_M.max())
