"""Arrow prototypes: what direction of its input a site's update amplifies most.

Ostapenko et al. 2024, section 3.3: the top right singular vector of the update `B^T A`, exact by a
QR of both factors and an R x R SVD. Needs no data. It lies in the span of A's rows, and is kept as
coefficients of them (`experts.directions`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from experts.directions import coefficients_of
from experts.weights import ExpertWeights


def arrow_coefficients(expert: ExpertWeights) -> dict[str, Tensor]:
    """One prototype (R,) per site, by A's rows; empty for kinds without a linear update."""
    return {site: coefficients_of(top_right_singular_vector(t["A"], t["B"]), t["A"])
            for site, t in expert.sites.items() if {"A", "B"} <= t.keys()}  # fmt: skip


def top_right_singular_vector(A_RD: Tensor, B_RO: Tensor) -> Tensor:
    """Argmax over unit v of |B^T A v|, without forming the (O, D) product.

    Zero where the update is: it amplifies no direction, and scores nothing.
    """
    Qa_DR, Ra_RR = torch.linalg.qr(A_RD.double().T)
    _, Rb_RR = torch.linalg.qr(B_RO.double().T)
    _, gain_R, Vh_RR = torch.linalg.svd(Rb_RR @ Ra_RR.T)
    return (Qa_DR @ Vh_RR[0] * (gain_R[0] > 0)).to(A_RD.dtype)
