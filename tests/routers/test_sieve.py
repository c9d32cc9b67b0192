"""Gaussians as points: who is dense at an input lies near, in a flat index and a quantised one."""

from dataclasses import replace

import faiss
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from routers import sieve
from routers.catalogue import Catalogue
from routers.metric import Densities, Gaussian, Metric
from routers.policy import Wishes
from routers.shortlist import Shortlist
from routers.sieve import Near, Sieve, is_quick, placed, sought
from routers.types import Features

WIDTH = 32
METRIC = Metric.of(torch.zeros(1, WIDTH, dtype=torch.float64), 0.01 * torch.eye(WIDTH).double())


def gaussians_of(count, rng, spread=1.0, offsets=3.0):
    """Without directions: what is left is what the sieve knows of them."""
    mean_KF = spread * torch.randn(count, WIDTH, generator=rng)
    offset_K = offsets * torch.randn(count, generator=rng)
    return Gaussian.pack(mean_KF, torch.zeros(count, 0, WIDTH), offset_K).unbind()


def ranks(near, white_F, count):
    """Owners, nearest first."""
    return list(near.owners(sought(white_F), count))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_the_nearest_points_are_the_densest_gaussians(seed, count):
    rng = torch.Generator().manual_seed(seed)
    gaussians = gaussians_of(count, rng)
    white_F = torch.randn(WIDTH, generator=rng)
    density_E = Densities(gaussians).of(white_F)
    found = ranks(Near(*placed(gaussians), faiss.METRIC_L2), white_F, count)
    assert sorted(found) == list(range(count))
    # half precision of the offset's root: a hundredth of it
    assert (density_E[found].diff() < 0.2).all()


def test_an_expert_of_few_inputs_is_found_though_its_mean_is_further():
    inputs = torch.zeros(2, 1, WIDTH)
    inputs[1] += 0.03  # 0.3 in each whitened direction
    many, few = METRIC.gaussians(list(inputs), [5000, 16])
    assert ranks(Near(*placed([many, few]), faiss.METRIC_L2), torch.zeros(WIDTH), 2) == [0, 1]
    closer = METRIC.gaussians(list(inputs / 3), [5000, 16])
    assert ranks(Near(*placed(closer), faiss.METRIC_L2), torch.zeros(WIDTH), 2) == [1, 0]


def test_who_is_not_known_has_no_point():
    rng = torch.Generator().manual_seed(0)
    one, two = gaussians_of(2, rng)
    owner_P, point_PF = placed([None, one, None, two])
    assert owner_P.tolist() == [1, 3]
    assert point_PF.shape == (2, WIDTH + 2)
    owner_P, point_PF = placed([None, None])
    assert len(owner_P) == len(point_PF) == len(Near(owner_P, point_PF, faiss.METRIC_L2)) == 0


def recall(gaussians, quantised, rng):
    """Of the densest 8 among the first 24 found, near each of many means."""
    hits = 0
    for gaussian in gaussians[:40]:
        white_F = gaussian.mean.float() + torch.randn(WIDTH, generator=rng)
        best = Densities(gaussians).of(white_F).topk(8).indices.tolist()
        hits += len({*best} & {*ranks(quantised, white_F, 24)})
    return hits / 8 / 40


@pytest.mark.parametrize("odd", [False, True])
def test_a_quantised_search_finds_the_densest_though_one_expert_is_odd(monkeypatch, odd):
    rng = torch.Generator().manual_seed(1)
    gaussians = gaussians_of(1000, rng, offsets=1.0)
    if odd:
        far_F = torch.zeros(1, WIDTH)
        far_F[0, 3] = 60_000.0
        offset = torch.tensor([-500.0])
        gaussians += Gaussian.pack(far_F, torch.zeros(1, 0, WIDTH), offset).unbind()
    monkeypatch.setattr(sieve, "FLAT", 100)
    quantised = Near(*placed(gaussians), faiss.METRIC_L2)
    assert isinstance(quantised._index, faiss.IndexPQFastScan)
    assert recall(gaussians, quantised, rng) >= 0.9


@pytest.fixture
def measured(catalogue_of):
    """40 experts whose inputs are known, all but the last one's; means apart from centroids."""
    rng = torch.Generator().manual_seed(2)
    catalogue = catalogue_of(40)
    told = [0.1 * torch.randn(3, WIDTH, generator=rng) for _ in range(39)]
    gaussians = [*METRIC.gaussians(told, [400] * 39), None]
    experts = [replace(e, gaussian=g) for e, g in zip(catalogue.experts, gaussians, strict=True)]
    return Catalogue(experts, metric=METRIC), [t[0] for t in told]


def first(made, query, count=1):
    """The ids of the nearest experts."""
    return [e.id for e in made.nearest(query, count)][:count]


def test_where_densities_tell_of_the_input_centroids_do_not(measured):
    catalogue, means = measured
    made = Sieve(catalogue.experts, METRIC)
    centroid_D = catalogue.experts[7].artefacts.centroids[0]
    assert first(made, Features(centroid_D, input_F=means[20])) == ["e20"]
    assert first(made, Features(centroid_D)) == ["e07"]
    assert first(Sieve(catalogue.experts), Features(centroid_D, input_F=means[20])) == ["e07"]


def test_where_no_expert_has_a_density_centroids_tell_of_the_input(measured):
    catalogue, means = measured
    last = catalogue.experts[39]
    query = Features(last.artefacts.centroids[0], input_F=means[20])
    assert first(Sieve([last], METRIC), query) == ["e39"]


def test_views_take_turns(measured):
    catalogue, means = measured
    words = catalogue.experts[33].artefacts
    query = Features(None, words.instructions[0], words.choices[:1], input_F=means[20])
    assert first(Sieve(catalogue.experts, METRIC), query, 2) == ["e33", "e20"]


@pytest.mark.parametrize("e", range(0, 39, 6))
def test_the_best_by_density_is_on_the_list_with_its_exact_score(monkeypatch, measured, e):
    monkeypatch.setattr("routers.shortlist.SMALL", 8)
    monkeypatch.setattr("routers.shortlist.KEPT", 6)
    catalogue, means = measured
    query = Features(input_F=means[e])
    short = Shortlist(catalogue).of(query, Wishes())
    whole_E, few_S = catalogue.densities(query), short.densities(query)
    assert len(short) == 6
    best = catalogue.ids[int(whole_E.argmax())]
    assert short.ids[int(few_S.argmax())] == best == f"e{e:02d}"
    there = [catalogue.position(id) for id in short.ids]
    expected_S = whole_E[there].clamp(min=float(few_S.min()))
    torch.testing.assert_close(few_S, expected_S, atol=1e-3, rtol=1e-5)


def test_a_sieve_of_another_metric_is_made_anew(monkeypatch, measured):
    monkeypatch.setattr("routers.shortlist.SMALL", 8)
    catalogue, _ = measured
    before = Shortlist(catalogue)
    same = Shortlist(Catalogue(catalogue.experts, metric=METRIC), before)
    assert same._sieves[0] is before._sieves[0]
    other = Metric(METRIC.centre_F, METRIC.whitening_FF, METRIC.between_RF)
    assert Shortlist(Catalogue(catalogue.experts, metric=other), before)._sieves[0].metric is other


def test_many_gaussians_are_not_quick(monkeypatch, measured):
    catalogue, _ = measured
    bare = [replace(e, artefacts=replace(e.artefacts, instructions=None, choices=None,
                                         centroids=None)) for e in catalogue.experts]  # fmt: skip
    monkeypatch.setattr(sieve, "FLAT", 39)
    assert is_quick(bare)
    monkeypatch.setattr(sieve, "FLAT", 38)
    assert not is_quick(bare)


def test_an_index_is_made_by_one_thread_and_searched_by_as_many_as_before(monkeypatch):
    threads, seen = faiss.omp_get_max_threads(), []
    monkeypatch.setattr(sieve, "FLAT", 100)

    def counted(train):
        def trained(index, rows):
            seen.append(faiss.omp_get_max_threads())
            train(index, rows)

        return trained

    monkeypatch.setattr(faiss.IndexPQFastScan, "train", counted(faiss.IndexPQFastScan.train))
    try:
        faiss.omp_set_num_threads(3)
        Near(torch.arange(200), torch.randn(200, 4))
        assert seen == [1]
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(threads)
