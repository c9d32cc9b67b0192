"""Prototypes: unit vectors, the mean first, near what they stand for."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from routers.fitting.centroids import prototypes, spherical_kmeans
from tests.routers.conftest import units


@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 99))
def test_centres_are_unit_vectors_and_no_more_than_asked(vectors, count, seed):
    feature_MD = units(vectors, seed)
    centre_KD = spherical_kmeans(feature_MD, count)
    assert centre_KD.shape == (min(count, vectors), 16)
    torch.testing.assert_close(centre_KD.norm(dim=1), torch.ones(len(centre_KD)))
    torch.testing.assert_close(spherical_kmeans(feature_MD, count), centre_KD)  # same seed


def test_as_many_centres_as_vectors_are_the_vectors():
    feature_MD = units(6, 0)
    cosine_MK = feature_MD @ spherical_kmeans(feature_MD, 9).T
    torch.testing.assert_close(cosine_MK.amax(dim=1), torch.ones(6))


def test_well_separated_clusters_are_found():
    centre_KD = torch.eye(16)[:3]
    noisy = [F.normalize(c + 0.05 * units(40, i), dim=-1) for i, c in enumerate(centre_KD)]
    best = max(
        float((centre_KD @ spherical_kmeans(torch.cat(noisy), 3, seed).T).amax(dim=1).min())
        for seed in range(5)
    )
    assert best > 0.99


def test_rounds_never_make_it_worse():
    feature_MD = units(60, 3)
    generator = torch.Generator().manual_seed(0)
    start_KD = feature_MD[torch.randperm(60, generator=generator)[:5]]
    end_KD = spherical_kmeans(feature_MD, 5)
    before = (feature_MD @ start_KD.T).amax(dim=1).sum()
    assert (feature_MD @ end_KD.T).amax(dim=1).sum() > before


def test_the_first_prototype_is_the_normalised_mean():
    feature_MD = units(30, 1)
    found = prototypes(feature_MD, 4)
    assert found.shape == (5, 16)
    torch.testing.assert_close(found[0], F.normalize(feature_MD.mean(0), dim=0))
