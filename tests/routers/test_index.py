"""All vectors in one product against one expert after the other."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from routers.index import UNSCORED, VectorIndex
from tests.routers.conftest import units


def brute_force(per_expert, query_QD):
    """Each expert's largest cosine, one expert after the other."""
    columns = [
        (query_QD @ v.T).amax(dim=1)
        if v is not None and len(v)
        else torch.full((len(query_QD),), UNSCORED)
        for v in per_expert
    ]
    return torch.stack(columns, dim=1)


@given(
    counts=st.lists(st.none() | st.integers(0, 4), min_size=1, max_size=8),
    queries=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_the_best_cosine_of_every_expert(counts, queries, seed):
    per_expert = [None if c is None else units(c, seed + i) for i, c in enumerate(counts)]
    query_QD = units(queries, seed + 99)
    got_QE = VectorIndex(per_expert).best(query_QD)
    torch.testing.assert_close(got_QE, brute_force(per_expert, query_QD), atol=1e-6, rtol=0)


def test_no_query_and_no_vector():
    assert VectorIndex([units(2, 0)]).best(torch.zeros(0, 16)).shape == (0, 1)
    assert VectorIndex([]).best(units(2, 0)).shape == (2, 0)


def test_half_precision_vectors_are_searched_as_floats():
    stored = units(4, 1)
    got = VectorIndex([stored.half()]).best(stored)
    torch.testing.assert_close(got, torch.ones(4, 1), atol=2e-3, rtol=0)


@given(
    counts=st.lists(st.none() | st.integers(0, 4), min_size=1, max_size=8),
    count=st.integers(1, 12),
    seed=st.integers(0, 999),
)
def test_the_nearest_vote_for_their_owners(counts, count, seed):
    per_expert = [None if c is None else units(c, seed + i) for i, c in enumerate(counts)]
    (query_D,) = units(1, seed + 99)
    cast = [
        (float(row @ query_D), e) for e, v in enumerate(per_expert) if v is not None for row in v
    ]
    expected_E = torch.zeros(len(counts))
    for cosine, e in sorted(cast, reverse=True)[:count]:
        expected_E[e] += cosine
    got_QE = VectorIndex(per_expert).votes(query_D[None], count)
    torch.testing.assert_close(got_QE, expected_E[None], atol=1e-5, rtol=0)
