"""The plane of instructions is that of scikit-learn's principal components; near is by cosine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from torch.nn import functional as F

from routers.plane import InstructionMap, Plane


def vectors(count, width, seed=0):
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn * torch.linspace(2, 1, width), dim=-1)


@given(st.integers(3, 40), st.integers(2, 24), st.integers(0, 10**6))
def test_places_are_the_first_two_principal_components(count, width, seed):
    vector_PD = vectors(count, width, seed)
    reference = PCA(2, svd_solver="full").fit(vector_PD.double().numpy())
    plane = Plane.through(vector_PD)
    np.testing.assert_allclose(plane.told_2, reference.explained_variance_ratio_, atol=1e-9)
    gaps = -np.diff([*reference.explained_variance_, 0.0])
    if min(gaps) > 1e-4:  # equal variances have no order
        expected = reference.transform(vector_PD.double().numpy())
        np.testing.assert_allclose(plane.place(vector_PD).abs(), np.abs(expected), atol=1e-6)


def test_a_map_does_not_depend_on_the_order_of_experts():
    vector_PD = vectors(12, 8)
    there = Plane.through(vector_PD).place(vector_PD)
    back = Plane.through(vector_PD.flip(0)).place(vector_PD)
    torch.testing.assert_close(there, back, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("count", "width"), [(3, 1100), (60, 1100), (1100, 40), (1100, 1030)])
def test_wide_and_many_vectors_give_the_plane_of_their_singular_vectors(count, width):
    vector_PD = vectors(count, width)
    vector_PD[:, :2] += torch.linspace(-2, 2, count).unsqueeze(1) * torch.tensor([1.0, 0.6])
    vector_PD[: count // 2, 2] += 1.0
    apart_PD = vector_PD.double() - vector_PD.double().mean(dim=0)
    _, value_K, axis_KD = torch.linalg.svd(apart_PD, full_matrices=False)
    plane = Plane.through(vector_PD)
    told_K = value_K.square() / value_K.square().sum()
    torch.testing.assert_close(plane.told_2, told_K[:2], atol=1e-9, rtol=0)
    along_2 = (plane.axes_2D * axis_KD[:2]).sum(dim=1).abs()  # either end may come first
    torch.testing.assert_close(along_2, torch.ones(2).double(), atol=1e-6, rtol=0)


def test_vectors_that_are_all_the_same_lie_in_the_middle():
    vector_PD = vectors(1, 1100).expand(1100, -1)
    plane = Plane.through(vector_PD)
    assert plane.told_2.tolist() == [0.0, 0.0]
    assert plane.place(vector_PD).abs().max() < 1e-6


@pytest.mark.parametrize(("count", "width"), [(0, 0), (1, 1), (1, 8), (2, 8), (3, 1)])
def test_few_vectors_have_a_map_too(count, width):
    vector_PD = vectors(count, width) if count else torch.zeros(0, 0)
    plane = Plane.through(vector_PD)
    place_P2 = plane.place(vector_PD)
    assert place_P2.shape == (count, 2)
    assert bool(place_P2.isfinite().all())
    assert 0 <= float(plane.told_2.sum()) <= 1 + 1e-9


def test_points_tell_whose_they_are_and_which():
    per_expert = [vectors(2, 6, 1), None, vectors(3, 6, 2)]
    made = InstructionMap(["a", "b", "c"], per_expert)
    assert made.owner_P.tolist() == [0, 0, 2, 2, 2]
    assert made.number_P.tolist() == [0, 1, 0, 1, 2]
    near = made.near(per_expert[2][1], 2)
    assert (near[0].expert, near[0].instruction) == ("c", 1)
    assert near[0].similarity == pytest.approx(1, abs=1e-6)
    cosines = torch.cat([per_expert[0], per_expert[2]]) @ per_expert[2][1]
    assert near[1].similarity == pytest.approx(float(cosines.sort().values[-2]), abs=1e-6)
    assert made.place(per_expert[2][1]) == pytest.approx(made.place_P2[3].tolist())


def test_a_library_without_instructions_has_an_empty_map():
    made = InstructionMap(["a"], [None])
    assert made.place(torch.ones(4)) == (0.0, 0.0)
    assert made.near(torch.ones(4), 3) == []
    assert made.owner_P.tolist() == made.number_P.tolist() == []
