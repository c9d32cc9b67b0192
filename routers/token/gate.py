"""Token router `gate`: PHATGOOSE's learned gates (Muqeeth et al. 2024, section 3.2).

`s = LN(v) . LN(u) / sqrt(d)`: both vectors are standardised over their d features. The stored gate
is standardised already, so its features sum to zero and the token's mean drops out: one product
with the raw token, divided by the token's standard deviation, is the same thing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.kernels import Use, scores

EPSILON = 1e-5  # as in LayerNorm
# What rounding leaves of a difference of two sums, in units of the last place of their squares: up
# to 5 were seen. A spread below it is noise, and would take scores past sqrt(d).
NOISE = 16


class GateRouter:
    """Standardised dot product of token and gate."""

    artefact = "gate"

    def scores(self, x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
        """See `experts.token_routing.TokenRouter.scores`."""
        D = x_ND.shape[1]
        # Squares and products of ordinary tokens overflow half precision; others stay as they are.
        wide = torch.promote_types(x_ND.dtype, torch.float32)
        wide_ND = x_ND.to(wide)
        score_NK = scores(wide_ND, V_ED.to(wide), use)
        return (score_NK * torch.rsqrt((_variance(wide_ND) + EPSILON) * D)).to(x_ND.dtype)


def _variance(x_ND: Tensor) -> Tensor:
    """Variance of each token (N, 1); a token that hardly varies gets the noise of rounding."""
    # Two plain sums are a fifth of the price of torch.var.
    square_N1 = torch.linalg.vector_norm(x_ND, dim=1, keepdim=True).square() / x_ND.shape[1]
    variance_N1 = square_N1 - x_ND.mean(dim=1, keepdim=True).square()
    return torch.maximum(variance_N1, square_N1 * (NOISE * torch.finfo(x_ND.dtype).eps))


def standardise(v_D: Tensor) -> Tensor:
    """LN without affine: how a trained gate is stored. A gate of zeros stays zeros."""
    return F.layer_norm(v_D, v_D.shape[-1:])
