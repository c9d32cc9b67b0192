"""Strategy `fused`: compiled loops over pairs of token and expert, without a step in between.

Each expert is read once, what a token does not use costs nothing, and a site is one call. On the
CPU, for passes of one thread (as lanes make them) that need no gradients, where numba is installed
(`sailplane[fast]`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from experts import native
from experts.kernels import gathered
from experts.kernels.use import Use

LOOPS = "experts.kernels.compiled"
ADD, SCORES = ("low_rank_add", "nnnnnniikkkk"), ("scores", "nnnikkk")


def prepare(dtype: torch.dtype) -> None:
    """See `native.prepare`."""
    native.prepare(LOOPS, dtype, ADD, SCORES)


def low_rank_add(
    y_NO: Tensor, x_ND: Tensor, A_ERD: Tensor, B_ERO: Tensor, use: Use, in_place: bool = False
) -> Tensor:
    """`y_n + sum_k w_nk (x_n A_k) B_k`."""
    if not (in_place and y_NO.is_contiguous()):
        y_NO = y_NO.clone(memory_format=torch.contiguous_format)
    E, (_, R, D), O = use.experts, A_ERD.shape, B_ERO.shape[2]
    z_PR = x_ND.new_empty(len(use.pairs.token_P), R)
    numbers = (
        native.dense(y_NO, use.tokens, O), native.dense(x_ND, use.tokens, D),
        native.dense(A_ERD, E, R, D), native.dense(B_ERO, E, R, O), z_PR, use.pair_weight,
    )  # fmt: skip
    native.require_one_type(*numbers)
    arrays = (*numbers, use.pairs.token_P, use.pairs.first_E1)
    native.loops(LOOPS, *ADD, x_ND.dtype)(*(a.data_ptr() for a in arrays), E, R, D, O)
    return y_NO


def scores(x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
    """`s_nk = v_k . x_n` for the K experts of the token's row."""
    N, K, D = use.tokens, use.width, V_ED.shape[1]
    score_NK = x_ND.new_empty(N, K)
    numbers = (score_NK, native.dense(x_ND, N, D), native.dense(V_ED, use.experts, D))
    native.require_one_type(*numbers)
    arrays = (*numbers, use.expert_NK.contiguous())
    native.loops(LOOPS, *SCORES, x_ND.dtype)(*(a.data_ptr() for a in arrays), N, K, D)
    return score_NK


mixed_linear = gathered.mixed_linear
