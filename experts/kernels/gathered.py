"""Strategy `gathered`: every row takes its own copy of its K experts, then one batched product.

Cheapest when rows have many tokens and use few experts each; the copy costs K experts a row. Rows
of different lengths are padded to the longest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experts.kernels.use import Use


def low_rank_add(
    y_NO: Tensor, x_ND: Tensor, A_ERD: Tensor, B_ERO: Tensor, use: Use, in_place: bool = False
) -> Tensor:
    """`y_n + sum_k w_nk (x_n A_k) B_k`."""
    if use.row_N is not None:
        update_NO = low_rank_add(
            y_NO.new_zeros(use.even.tokens, y_NO.shape[1]), use.spread(x_ND), A_ERD, B_ERO,
            use.even, in_place,
        )  # fmt: skip
        return y_NO + use.gather(update_NO)
    B, K, T, R = use.rows, use.width, use.tokens_per_row, A_ERD.shape[1]
    flat = use.expert_BK.flatten()
    A_BSD = A_ERD.index_select(0, flat).view(B, K * R, -1)
    B_BSO = B_ERO.index_select(0, flat).view(B, K * R, -1)
    z_BTS = torch.bmm(x_ND.view(B, T, -1), A_BSD.transpose(1, 2))
    z_BTS = (z_BTS.view(B, T, K, R) * _per_slot(use)).view(B, T, K * R)
    y_BTO = y_NO.view(B, T, -1)
    total_BTO = y_BTO.baddbmm_(z_BTS, B_BSO) if in_place else torch.baddbmm(y_BTO, z_BTS, B_BSO)
    return total_BTO.view(use.tokens, -1)


def mixed_linear(x_ND: Tensor, W_EHD: Tensor, b_EH: Tensor, use: Use) -> Tensor:
    """`sum_k w_nk (W_k x_n + b_k)`; with weights per row the matrices are merged first."""
    if use.row_N is not None:
        return use.gather(mixed_linear(use.spread(x_ND), W_EHD, b_EH, use.even))
    B, T = use.rows, use.tokens_per_row
    E, H, D = W_EHD.shape
    x_BTD = x_ND.view(B, T, D)
    if not use.per_token:
        W_BHD = (use.dense_weight @ W_EHD.reshape(E, H * D)).view(B, H, D)
        b_B1H = (use.dense_weight @ b_EH).unsqueeze(1)
        return torch.baddbmm(b_B1H, x_BTD, W_BHD.transpose(1, 2)).view(use.tokens, H)
    K, flat = use.width, use.expert_BK.flatten()
    W_BSD = W_EHD.index_select(0, flat).view(B, K * H, D)
    b_B1S = b_EH.index_select(0, flat).view(B, 1, K * H)
    z_BTS = torch.baddbmm(b_B1S, x_BTD, W_BSD.transpose(1, 2))
    return (z_BTS.view(B, T, K, H) * _per_slot(use)).sum(dim=2).view(use.tokens, H)


def scores(x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
    """`s_nk = v_k . x_n` for the K experts of the token's row."""
    if use.row_N is not None:
        return use.gather(scores(use.spread(x_ND), V_ED, use.even))
    B, K, T = use.rows, use.width, use.tokens_per_row
    V_BKD = V_ED.index_select(0, use.expert_BK.flatten()).view(B, K, -1)
    return torch.bmm(x_ND.view(B, T, -1), V_BKD.transpose(1, 2)).view(use.tokens, K)


def _per_slot(use: Use) -> Tensor:
    """Weights shaped to multiply (B, T, K, R)."""
    if use.per_token:
        return use.weight.view(use.rows, use.tokens_per_row, use.width, 1)
    return use.weight.view(use.rows, 1, use.width, 1)
