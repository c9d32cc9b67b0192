"""What a LoRA expert adds to a site's weight, dense and as factors, and back.

Pure functions on the tensors of one site. `A` (R, D) and `B` (R, O) are the factors with the
scaling folded in, as in `experts.kinds.lora`; the delta is `A^T B` (D, O), so that the site's
output gains `x delta`. Knows nothing of merge rules.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experts.weights import SiteTensors


def delta(factors: SiteTensors) -> Tensor:
    """The dense delta (D, O)."""
    return factors["A"].T @ factors["B"]


def as_factors(delta_DO: Tensor) -> dict[str, Tensor]:
    """The same delta, number by number, as factors of full rank min(D, O).

    One factor is the delta itself and the other the identity of the smaller side.
    """
    D, O = delta_DO.shape
    eye = torch.eye(min(D, O), dtype=delta_DO.dtype, device=delta_DO.device)
    return {"A": eye, "B": delta_DO} if D <= O else {"A": delta_DO.T.contiguous(), "B": eye}


def no_wider(factors: SiteTensors) -> SiteTensors:
    """The same delta with no more than full rank: side by side, factors may become wider."""
    rank, D = factors["A"].shape
    return as_factors(delta(factors)) if rank > min(D, factors["B"].shape[1]) else factors


def truncate(factors: SiteTensors, rank: int) -> tuple[SiteTensors, float]:
    """The nearest delta of at most `rank` in Frobenius norm (Eckart and Young 1936).

    Exact: QR of both factors and the SVD of the small product between them.

    Returns:
        Its factors, and the squared Frobenius norm of what was lost.
    """
    if factors["A"].shape[0] <= rank:
        return factors, 0.0
    left_DR, upper_RR = torch.linalg.qr(factors["A"].T)
    right_OR, lower_RR = torch.linalg.qr(factors["B"].T)
    U, S, Vh = torch.linalg.svd(upper_RR @ lower_RR.T, full_matrices=False)
    cut = {
        "A": (left_DR @ U[:, :rank]).T.contiguous(),
        "B": S[:rank, None] * (Vh[:rank] @ right_OR.T),
    }
    return cut, float(S[rank:].double().square().sum())


def inner(one: SiteTensors, other: SiteTensors) -> float:
    """Frobenius inner product of two deltas, in float64, without making either dense."""
    a, b = ({part: t.double() for part, t in factors.items()} for factors in (one, other))
    return float(((a["A"] @ b["A"].T) * (a["B"] @ b["B"].T)).sum())
