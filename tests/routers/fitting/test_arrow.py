"""Arrow prototypes against a full singular value decomposition."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from routers.fitting.arrow import arrow_vectors, top_right_singular_vector


def factors(rank: int, width: int, out: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rank, width, generator=generator, dtype=torch.float64),
        torch.randn(rank, out, generator=generator, dtype=torch.float64),
    )


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_it_is_the_exact_top_right_singular_vector(rank, width, out, seed):
    """Ranks above the widths included."""
    A_RD, B_RO = factors(rank, width, out, seed)
    v_D = top_right_singular_vector(A_RD, B_RO)
    _, s, Vh = torch.linalg.svd(B_RO.T @ A_RD)
    torch.testing.assert_close(v_D.norm(), torch.tensor(1.0).double())
    torch.testing.assert_close((B_RO.T @ (A_RD @ v_D)).norm(), s[0])
    if len(s) < 2 or s[1] < 0.98 * s[0]:  # else the direction is hardly defined
        torch.testing.assert_close((v_D @ Vh[0]).abs(), torch.tensor(1.0).double())


def test_no_other_direction_is_amplified_more():
    A_RD, B_RO = factors(4, 16, 10, 0)
    v_D = top_right_singular_vector(A_RD, B_RO)
    other_MD = torch.nn.functional.normalize(torch.randn(500, 16).double(), dim=-1)
    most = (other_MD @ A_RD.T @ B_RO).norm(dim=1).max()
    assert (v_D @ A_RD.T @ B_RO).norm() >= most


def test_a_fresh_expert_has_a_finite_prototype():
    v_D = top_right_singular_vector(torch.randn(2, 6), torch.zeros(2, 5))
    assert v_D.isfinite().all()


def test_only_kinds_with_a_linear_update_have_one(make_expert):
    lora = make_expert("lora", "a")
    assert arrow_vectors(lora).keys() == lora.sites.keys()
    assert arrow_vectors(make_expert("bottleneck", "b")) == {}
