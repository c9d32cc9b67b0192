"""The slow twin: the primitive written as its definition, one token and expert at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from experts.kernels.use import Use


def low_rank_add(
    y_NO: Tensor, x_ND: Tensor, A_ERD: Tensor, B_ERO: Tensor, use: Use, in_place: bool = False
) -> Tensor:
    """`y_n + sum_k w_nk (x_n A_k) B_k`, as a loop."""
    rows: list[Tensor] = []
    for n in range(use.tokens):
        y_O = y_NO[n]
        for k in range(use.width):
            expert = int(use.expert_NK[n, k])
            y_O = y_O + use.weight_NK[n, k] * (A_ERD[expert] @ x_ND[n]) @ B_ERO[expert]
        rows.append(y_O)
    return torch.stack(rows)


def mixed_linear(x_ND: Tensor, W_EHD: Tensor, b_EH: Tensor, use: Use) -> Tensor:
    """`sum_k w_nk (W_k x_n + b_k)`, as a loop."""
    rows: list[Tensor] = []
    for n in range(use.tokens):
        h_H = torch.zeros_like(b_EH[0])
        for k in range(use.width):
            expert = int(use.expert_NK[n, k])
            h_H = h_H + use.weight_NK[n, k] * (W_EHD[expert] @ x_ND[n] + b_EH[expert])
        rows.append(h_H)
    return torch.stack(rows)


def scores(x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
    """`s_nk = v_k . x_n` for the K experts of the token's row, as a loop."""
    return torch.stack(
        [torch.stack([V_ED[int(e)] @ x_ND[n] for e in use.expert_NK[n]]) for n in range(use.tokens)]
    )
