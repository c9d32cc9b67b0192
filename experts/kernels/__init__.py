"""The primitive: stacked experts applied to flat tokens, each token with its own weights.

Four strategies compute the same thing at different cost; `choose` picks one by shape.
`reference` is their slow twin. Nothing here knows what a request or a router is.
"""

from __future__ import annotations

from types import ModuleType

from torch import Tensor

from experts import native
from experts.kernels import fused, gathered, grouped, masked, reference
from experts.kernels.choose import cheapest
from experts.kernels.use import Lengths, Use

__all__ = ["STRATEGIES", "Lengths", "Use", "low_rank_add", "mixed_linear", "scores"]

STRATEGIES: dict[str, ModuleType] = {
    "gathered": gathered,
    "masked": masked,
    "grouped": grouped,
    "fused": fused,
    "reference": reference,
}


def low_rank_add(
    y_NO: Tensor,
    x_ND: Tensor,
    A_ERD: Tensor,
    B_ERO: Tensor,
    use: Use,
    strategy: str | None = None,
    in_place: bool = False,
) -> Tensor:
    """Add a mix of low-rank products: `y_n + sum_k w_nk (x_n A_k) B_k`.

    Args:
        y_NO: what the frozen module gave. x_ND: its input. A_ERD, B_ERO: stacked factors.
        use: experts and weights of each token. strategy: a name, or None to choose by shape.
        in_place: allow `y_NO` to be overwritten, which saves a copy of it.
    """
    width = A_ERD.shape[2] + B_ERO.shape[2]
    name = strategy or cheapest(use, A_ERD.shape[1], width, fused=native.serves(x_ND))
    return STRATEGIES[name].low_rank_add(y_NO, x_ND, A_ERD, B_ERO, use, in_place)


def mixed_linear(
    x_ND: Tensor, W_EHD: Tensor, b_EH: Tensor, use: Use, strategy: str | None = None
) -> Tensor:
    """One linear layer whose parameters are mixed per token: `sum_k w_nk (W_k x_n + b_k)`."""
    name = strategy or cheapest(use, W_EHD.shape[1], W_EHD.shape[2])
    return STRATEGIES[name].mixed_linear(x_ND, W_EHD, b_EH, use)


def scores(x_ND: Tensor, V_ED: Tensor, use: Use, strategy: str | None = None) -> Tensor:
    """`s_nk = v_k . x_n` for the K experts of each token's row: (N, K)."""
    name = strategy or cheapest(use, 1, V_ED.shape[1], fused=native.serves(x_ND))
    return STRATEGIES[name].scores(x_ND, V_ED, use)
