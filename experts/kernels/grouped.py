"""Strategy `grouped`: tokens sorted by expert, one small product per expert in use.

Cheapest when each token uses few of many candidates: pairs of weight 0 cost nothing.
"""

from __future__ import annotations

from torch import Tensor

from experts.kernels import masked
from experts.kernels.use import Use


def low_rank_add(
    y_NO: Tensor, x_ND: Tensor, A_ERD: Tensor, B_ERO: Tensor, use: Use, in_place: bool = False
) -> Tensor:
    """`y_n + sum_k w_nk (x_n A_k) B_k`."""
    y_NO = y_NO if in_place else y_NO.clone()
    for expert, token_P, weight_P in use.pairs_by_expert:
        z_PR = (x_ND.index_select(0, token_P) @ A_ERD[expert].T) * weight_P.unsqueeze(1)
        y_NO = y_NO.index_add_(0, token_P, z_PR @ B_ERO[expert])
    return y_NO


def mixed_linear(x_ND: Tensor, W_EHD: Tensor, b_EH: Tensor, use: Use) -> Tensor:
    """`sum_k w_nk (W_k x_n + b_k)`."""
    h_NH = x_ND.new_zeros(use.tokens, W_EHD.shape[1])
    for expert, token_P, weight_P in use.pairs_by_expert:
        z_PH = x_ND.index_select(0, token_P) @ W_EHD[expert].T + b_EH[expert]
        h_NH = h_NH.index_add(0, token_P, z_PH * weight_P.unsqueeze(1))
    return h_NH


scores = masked.scores
