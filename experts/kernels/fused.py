"""Strategy `fused`: compiled loops over pairs of token and expert, without a step in between.

Each expert is read once, what a token does not use costs nothing, and a site is one call. On the
CPU, for passes of one thread (as lanes make them) that need no gradients, where numba is installed
(`sailplane[fast]`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from experts.kernels import gathered
from experts.kernels.use import Use

DENSE = torch.contiguous_format
DTYPES = {torch.float32: "float32", torch.float64: "float64"}


@cache
def installed() -> bool:
    """Whether numba is."""
    return find_spec("numba") is not None


def serves(like: Tensor) -> bool:
    """Whether the loops do for tensors of this type and place, and for this thread."""
    return (
        like.dtype in DTYPES
        and like.device.type == "cpu"
        and installed()
        and not torch.is_grad_enabled()
        and torch.get_num_threads() == 1
    )


def prepare(dtype: torch.dtype) -> None:
    """Compile what is to be compiled, which takes a second, before a pass has to wait for it."""
    if installed() and dtype in DTYPES:
        _compiled("compiled_add", dtype)
        _compiled("compiled_scores", dtype)


def low_rank_add(
    y_NO: Tensor, x_ND: Tensor, A_ERD: Tensor, B_ERO: Tensor, use: Use, in_place: bool = False
) -> Tensor:
    """`y_n + sum_k w_nk (x_n A_k) B_k`."""
    total_NO = y_NO if in_place and y_NO.is_contiguous() else y_NO.clone(memory_format=DENSE)
    (E, R, D), O = A_ERD.shape, B_ERO.shape[2]
    z_PR = x_ND.new_empty(len(use.pairs.token_P), R)
    numbers = (
        _dense(total_NO, use.tokens, O), _dense(x_ND, use.tokens, D), _dense(A_ERD, E, R, D),
        _dense(B_ERO, E, R, O), z_PR, use.pair_weight,
    )  # fmt: skip
    _require_one_type(numbers)
    arrays = (*numbers, use.pairs.token_P, use.pairs.first_E1)
    _compiled("compiled_add", x_ND.dtype)(*(a.data_ptr() for a in arrays), E, R, D, O)
    return total_NO


def scores(x_ND: Tensor, V_ED: Tensor, use: Use) -> Tensor:
    """`s_nk = v_k . x_n` for the K experts of the token's row."""
    N, K, D = use.tokens, use.width, V_ED.shape[1]
    score_NK = x_ND.new_empty(N, K)
    numbers = (score_NK, _dense(x_ND, N, D), _dense(V_ED, use.experts, D))
    _require_one_type(numbers)
    arrays = (*numbers, use.expert_NK.contiguous())
    _compiled("compiled_scores", x_ND.dtype)(*(a.data_ptr() for a in arrays), N, K, D)
    return score_NK


mixed_linear = gathered.mixed_linear


def _dense(tensor: Tensor, *shape: int) -> Tensor:
    """The numbers side by side, as the loops count on; they check nothing."""
    if tensor.shape != shape:
        raise ValueError(f"Expected a tensor of shape {shape}, not {tuple(tensor.shape)}.")
    return tensor.contiguous()


def _require_one_type(tensors: Sequence[Tensor]) -> None:
    if len({t.dtype for t in tensors}) > 1:
        raise ValueError(f"Expected one type of numbers, not {[t.dtype for t in tensors]}.")


@cache
def _compiled(name: str, dtype: torch.dtype) -> Any:
    return getattr(import_module("experts.kernels.compiled"), name)(DTYPES[dtype])
