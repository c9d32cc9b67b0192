"""Strategy `masked`: one product over all E stacked experts, unused ones masked by weight 0.

Cheapest when the batch has few distinct experts, or rows too short to be worth a copy. What an
expert overflows to in tokens that do not use it is left out, not multiplied by 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experts.kernels.use import Use


def low_rank_add(
    y_NO: Tensor, x_ND: Tensor, A_ERD: Tensor, B_ERO: Tensor, use: Use, in_place: bool = False
) -> Tensor:
    """`y_n + sum_k w_nk (x_n A_k) B_k`."""
    E, R, _ = A_ERD.shape
    z_NS = x_ND @ A_ERD.reshape(E * R, -1).T
    z_NS = _weighted(z_NS.view(use.tokens, E, R), use).view(-1, E * R)
    B_SO = B_ERO.reshape(E * R, -1)
    return y_NO.addmm_(z_NS, B_SO) if in_place else torch.addmm(y_NO, z_NS, B_SO)


def mixed_linear(x_ND: Tensor, W_EHD: Tensor, b_EH: Tensor, use: Use) -> Tensor:
    """`sum_k w_nk (W_k x_n + b_k)`."""
    E, H, _ = W_EHD.shape
    z_NS = torch.addmm(b_EH.reshape(E * H), x_ND, W_EHD.reshape(E * H, -1).T)
    return _weighted(z_NS.view(use.tokens, E, H), use).sum(dim=1)


def scores(x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
    """`s_nk = v_k . x_n` for the K experts of the token's row."""
    return torch.gather(x_ND @ V_ED.T, 1, use.expert_NK)


def _weighted(z_NEX: Tensor, use: Use) -> Tensor:
    weight_NE1 = use.dense_weight_NE.unsqueeze(-1)
    return (z_NEX * weight_NE1).masked_fill(weight_NE1 == 0, 0.0)
