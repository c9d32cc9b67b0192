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


class GateRouter:
    """Standardised dot product of token and gate."""

    artefact = "gate"

    def scores(self, x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
        """See `experts.mix.TokenRouter.scores`."""
        D = x_ND.shape[1]
        # Two plain sums are a fifth of the price of torch.var.
        variance_N1 = torch.linalg.vector_norm(x_ND, dim=1, keepdim=True).square() / D
        variance_N1 = variance_N1 - x_ND.mean(dim=1, keepdim=True).square()
        return scores(x_ND, V_ED, use) * torch.rsqrt((variance_N1 + EPSILON) * D)


def standardise(v_D: Tensor) -> Tensor:
    """LN without affine: how a trained gate is stored. A gate of zeros stays zeros."""
    return F.layer_norm(v_D, v_D.shape[-1:])
