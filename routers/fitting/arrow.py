"""Arrow prototypes: what direction of its input a site's update amplifies most.

Ostapenko et al. 2024, section 3.3: the top right singular vector of the update `B^T A`, exact by a
QR of both factors and an R x R SVD. Needs no data.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experts.weights import ExpertWeights


def arrow_vectors(expert: ExpertWeights) -> dict[str, Tensor]:
    """One unit prototype (D,) per site; empty for kinds without a linear update."""
    return {site: top_right_singular_vector(t["A"], t["B"])
            for site, t in expert.sites.items() if {"A", "B"} <= t.keys()}  # fmt: skip


def top_right_singular_vector(A_RD: Tensor, B_RO: Tensor) -> Tensor:
    """Argmax over unit v of |B^T A v|, without forming the (O, D) product."""
    Qa_DR, Ra_RR = torch.linalg.qr(A_RD.double().T)
    _, Rb_RR = torch.linalg.qr(B_RO.double().T)
    Vh_RR = torch.linalg.svd(Rb_RR @ Ra_RR.T).Vh
    return (Qa_DR @ Vh_RR[0]).to(A_RD.dtype)
