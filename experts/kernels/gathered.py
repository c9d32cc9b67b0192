"""Strategy `gathered`: every row takes its own copy of its K experts, then one batched product.

Cheapest when rows have many tokens and use few experts each; the copy costs K experts a row. Rows
of different lengths take a product each.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experts.kernels import masked
from experts.kernels.use import Use


def low_rank_add(
    y_NO: Tensor, x_ND: Tensor, A_ERD: Tensor, B_ERO: Tensor, use: Use, in_place: bool = False
) -> Tensor:
    """`y_n + sum_k w_nk (x_n A_k) B_k`."""
    B, K, R = use.rows, use.width, A_ERD.shape[1]
    flat = use.expert_BK.flatten()
    A_BSD = A_ERD.index_select(0, flat).view(B, K * R, -1)
    B_BSO = B_ERO.index_select(0, flat).view(B, K * R, -1)
    if use.lengths is not None:
        return _row_by_row(y_NO, x_ND, A_BSD, B_BSO, use, in_place)
    T = use.tokens_per_row
    z_BTS = torch.bmm(x_ND.view(B, T, -1), A_BSD.transpose(1, 2))
    z_BTS = (z_BTS.view(B, T, K, R) * _per_slot(use)).view(B, T, K * R)
    y_BTO = y_NO.view(B, T, -1)
    total_BTO = y_BTO.baddbmm_(z_BTS, B_BSO) if in_place else torch.baddbmm(y_BTO, z_BTS, B_BSO)
    return total_BTO.view(use.tokens, -1)


def _row_by_row(
    y_NO: Tensor, x_ND: Tensor, A_BSD: Tensor, B_BSO: Tensor, use: Use, in_place: bool
) -> Tensor:
    """A product for each row: padding them all to the longest costs more than it saves."""
    weight = use.weight.repeat_interleave(A_BSD.shape[1] // use.width, dim=1)
    rows: list[Tensor] = []
    for row, tokens in use.spans:
        z_TS = x_ND[tokens] @ A_BSD[row].T * weight[tokens if use.per_token else row]
        y_TO = y_NO[tokens]
        rows.append(y_TO.addmm_(z_TS, B_BSO[row]) if in_place
                    else torch.addmm(y_TO, z_TS, B_BSO[row]))  # fmt: skip
    return y_NO if in_place else torch.cat(rows)


def mixed_linear(x_ND: Tensor, W_EHD: Tensor, b_EH: Tensor, use: Use) -> Tensor:
    """`sum_k w_nk (W_k x_n + b_k)`; with weights per row the matrices are merged first."""
    if use.lengths is not None:
        rows = [mixed_linear(x_ND[tokens], W_EHD, b_EH, use.only(row, tokens))
                for row, tokens in use.spans]  # fmt: skip
        return torch.cat(rows)
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
    if use.lengths is not None:
        return masked.scores(x_ND, V_ED, use)
    B, K, T = use.rows, use.width, use.tokens_per_row
    V_BKD = V_ED.index_select(0, use.expert_BK.flatten()).view(B, K, -1)
    return torch.bmm(x_ND.view(B, T, -1), V_BKD.transpose(1, 2)).view(use.tokens, K)


def _per_slot(use: Use) -> Tensor:
    """Weights shaped to multiply (B, T, K, R)."""
    if use.per_token:
        return use.weight.view(use.rows, use.tokens_per_row, use.width, 1)
    return use.weight.view(use.rows, 1, use.width, 1)
