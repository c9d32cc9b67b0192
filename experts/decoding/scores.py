"""Attention over keys that are given: plain, or in torch's fused kernel where that serves.

Knows grouped heads, masks, windows, soft caps and sinks, as models of transformers ask for them;
not where keys come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Rule:
    """How a layer attends.

    Attributes:
        scale: of the products. window: how many of the last tokens are seen, itself included; None
            is all. softcap: bounds the products (Gemma 2). sink_H: a logit a head for attending
            to nothing (gpt-oss).
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    sink_H: Tensor | None = None


def attend(
    q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, rule: Rule, added: Tensor | None = None,
    *, causal: bool = False,
) -> Tensor:  # fmt: skip
    """Outputs (B, T, H, D) of T queries over S keys, whose G heads are shared by H query heads.

    Args:
        added: what is added to the products, to be broadcast to (B, H, T, S); -inf hides a key.
        causal: query t sees keys up to t; only where T and S are equal.
    """
    plain = q_BHTD.shape[2] == 1 or rule.softcap is not None or rule.sink_H is not None
    if not plain:
        grouped = q_BHTD.shape[1] != k_BGSD.shape[1]
        out_BHTD = F.scaled_dot_product_attention(
            q_BHTD, k_BGSD, v_BGSD, added, is_causal=causal, scale=rule.scale, enable_gqa=grouped
        )
        return out_BHTD.transpose(1, 2)
    if causal:
        added = causal_mask(q_BHTD.shape[2], k_BGSD.shape[2], 0, None, q_BHTD)
    return _plain(q_BHTD, k_BGSD, v_BGSD, rule, added)


def _plain(
    q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, rule: Rule, added: Tensor | None
) -> Tensor:
    """Softmax of products, written out: for one query a row it is also the quicker way."""
    B, H, T, D = q_BHTD.shape
    G, S = k_BGSD.shape[1], k_BGSD.shape[2]
    q_BGXD = q_BHTD.reshape(B, G, H // G * T, D)  # heads that share keys, as queries of one
    if q_BGXD.shape[2] == 1:  # keys as they lie in memory: a sixth faster
        product_BHTS = torch.matmul(k_BGSD, q_BGXD.transpose(2, 3)).view(B, H, T, S) * rule.scale
    else:
        product_BHTS = torch.matmul(q_BGXD, k_BGSD.transpose(2, 3)).view(B, H, T, S) * rule.scale
    if rule.softcap is not None:
        product_BHTS = torch.tanh(product_BHTS / rule.softcap) * rule.softcap
    if added is not None:
        product_BHTS = product_BHTS + added
    out_BGXD = torch.matmul(weights(product_BHTS, rule).view(B, G, H // G * T, S), v_BGSD)
    return out_BGXD.view(B, H, T, v_BGSD.shape[3]).transpose(1, 2)


def weights(product_BHTS: Tensor, rule: Rule) -> Tensor:
    """Softmax of products, beside a layer's sinks where it has them."""
    if rule.sink_H is None:
        return torch.softmax(product_BHTS, dim=-1)
    sink_BHT1 = rule.sink_H.view(1, -1, 1, 1).to(product_BHTS.dtype)
    sink_BHT1 = sink_BHT1.expand(*product_BHTS.shape[:3], 1)
    return torch.softmax(torch.cat([product_BHTS, sink_BHT1], dim=-1), dim=-1)[..., :-1]


def causal_mask(
    queries: int, keys: int, before: int, window: int | None, like: Tensor
) -> Tensor | None:
    """What hides later keys, and those out of the window: (T, S); None where nothing is hidden.

    Args:
        before: keys that precede the first query. like: of the wanted type and device.
    """
    at_T1 = torch.arange(before, before + queries, device=like.device).unsqueeze(1)
    at_S = torch.arange(keys, device=like.device)
    return hidden(at_T1 + 1, at_S, window, like)


def hidden(seen: Tensor, at_S: Tensor, window: int | None, like: Tensor) -> Tensor | None:
    """-inf where a key is not among the first `seen`, or not among the last `window` of these."""
    out = at_S >= seen
    if window is not None:
        out = out | (at_S < seen - window)
    if not bool(out.any()):
        return None
    return like.new_zeros(out.shape).masked_fill_(out, -torch.inf)
