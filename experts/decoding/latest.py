"""Attention of each running row's newest token over what is kept of the row, by compiled loops.

Rows read their own tokens alone, whatever the others' lengths; the twin in tensors is
`experts.decoding.scores.attend`, over all rows of a page padded to the longest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from experts import native
from experts.decoding.pages import Page
from experts.decoding.scores import Rule, weights

LOOPS = "experts.decoding.compiled"
PRODUCTS, MIXTURES = ("products", "nnnnifkkkkkkk"), ("mixtures", "nnnnikkkkkkk")


def serves(rule: Rule, like: Tensor) -> bool:
    """Whether this does what a layer asks: a soft cap comes between products and what hides."""
    return rule.softcap is None and native.serves(like)


def prepare(dtype: torch.dtype) -> None:
    """See `native.prepare`."""
    native.prepare(LOOPS, dtype, PRODUCTS, MIXTURES)


def attend_latest(
    q_BHD: Tensor, k_BGD: Tensor, v_BGD: Tensor, page: Page, layer: int, at_B: Tensor, rule: Rule,
    longest: int, bias: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Keep a page's newest keys and values, and attend from its newest tokens: (B, 1, H, D).

    Args:
        at_B: tokens that are kept of each row already. longest: the largest of them, and one.
        bias: added to the products, (B, H, 1, longest).
    """
    keys, values = page.keys[layer], page.values[layer]
    (B, H, D), (_, G, room, width) = q_BHD.shape, values.shape
    window = rule.window or 0
    score_BH1S = q_BHD.new_empty(B, H, 1, longest)
    numbers = (score_BH1S, native.dense(q_BHD, B, H, D), native.dense(k_BGD, B, G, D), keys)
    native.require_one_type(*numbers)
    native.loops(LOOPS, *PRODUCTS, q_BHD.dtype)(
        *(n.data_ptr() for n in (*numbers, at_B)), rule.scale, B, H, G, D, room, longest, window
    )
    weight_BH1S = weights(score_BH1S if bias is None else score_BH1S + bias, rule)
    out_B1HD = q_BHD.new_empty(B, 1, H, width)
    numbers = (out_B1HD, weight_BH1S.contiguous(), native.dense(v_BGD, B, G, width), values)
    native.require_one_type(*numbers)
    native.loops(LOOPS, *MIXTURES, q_BHD.dtype)(
        *(n.data_ptr() for n in (*numbers, at_B)), B, H, G, width, room, longest, window
    )
    return out_B1HD
