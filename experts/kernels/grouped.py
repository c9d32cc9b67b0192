"""Strategy `grouped`: tokens gathered by expert, one batched product over all experts.

Every expert's tokens stand side by side, padded to the largest such group: each expert is read
once, and what a token does not use costs nothing. Cheapest where many experts share a pass and
each token uses few of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experts.kernels import masked
from experts.kernels.use import Groups, Use


def low_rank_add(
    y_NO: Tensor, x_ND: Tensor, A_ERD: Tensor, B_ERO: Tensor, use: Use, in_place: bool = False
) -> Tensor:
    """`y_n + sum_k w_nk (x_n A_k) B_k`."""
    groups = use.groups
    z_EGR = torch.bmm(_gather(x_ND, groups), groups.of(A_ERD).transpose(1, 2))
    z_EGR = z_EGR * use.group_weight.view(groups.experts, groups.size, 1)
    update_SO = torch.bmm(z_EGR, groups.of(B_ERO)).flatten(0, 1)
    add = y_NO.index_add_ if in_place else y_NO.index_add
    return add(0, groups.token_S, update_SO)


def mixed_linear(x_ND: Tensor, W_EHD: Tensor, b_EH: Tensor, use: Use) -> Tensor:
    """`sum_k w_nk (W_k x_n + b_k)`."""
    groups = use.groups
    h_EGH = torch.baddbmm(
        groups.of(b_EH).unsqueeze(1), _gather(x_ND, groups), groups.of(W_EHD).transpose(1, 2)
    )
    h_EGH = h_EGH * use.group_weight.view(groups.experts, groups.size, 1)
    h_NH = x_ND.new_zeros(use.tokens, W_EHD.shape[1])
    return h_NH.index_add(0, groups.token_S, h_EGH.flatten(0, 1))


def _gather(x_ND: Tensor, groups: Groups) -> Tensor:
    return x_ND.index_select(0, groups.token_S).view(groups.experts, groups.size, x_ND.shape[1])


scores = masked.scores
