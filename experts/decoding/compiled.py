"""Loops over the kept tokens of running rows, for `latest`: see `experts.native`.

Flat arrays of one type of numbers: of B rows with H query heads that share G heads of keys and
values, `room` tokens of D numbers each, of which row b has `at[b]` before its newest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experts.compiled import dot, dots, inline


@inline
def _span(newest: int, window: int) -> tuple[int, int]:
    """The tokens that are seen: from which one, and up to which."""
    return (max(0, newest + 1 - window) if window else 0), newest + 1


def products(
    s: Any, q: Any, k: Any, keys: Any, at: Any, scale: float,
    B: int, H: int, G: int, D: int, room: int, longest: int, window: int,
) -> None:  # fmt: skip
    """Keep the newest keys k (B, G, D), and let `s_bht = q_bh . key_t * scale`; -inf where hidden.

    Products stand in (B, H, longest).
    """
    for b in range(B):
        first, until = _span(at[b], window)
        for g in range(G):
            row = (b * G + g) * room * D
            for d in range(D):
                keys[row + at[b] * D + d] = k[(b * G + g) * D + d]
        for h in range(H):
            row, own, mine = (b * G + h * G // H) * room * D, (b * H + h) * D, (b * H + h) * longest
            for t in range(mine, mine + longest):
                s[t] = -np.inf
            for t in range(first, until):
                s[mine + t] = 0
            for t in range(first, until - 3, 4):
                i = mine + t
                s[i], s[i + 1], s[i + 2], s[i + 3] = dots(
                    s[i], s[i + 1], s[i + 2], s[i + 3], keys, row + t * D, D, q, own, D
                )
            for t in range(until - (until - first) % 4, until):
                s[mine + t] = dot(s[mine + t], keys, row + t * D, q, own, D)
            for t in range(first, until):
                s[mine + t] *= scale


def mixtures(
    out: Any, p: Any, v: Any, values: Any, at: Any,
    B: int, H: int, G: int, D: int, room: int, longest: int, window: int,
) -> None:  # fmt: skip
    """Keep the newest values v (B, G, D), and let `out_bh = sum_t p_bht value_t`."""
    for b in range(B):
        first, until = _span(at[b], window)
        for g in range(G):
            row = (b * G + g) * room * D
            for d in range(D):
                values[row + at[b] * D + d] = v[(b * G + g) * D + d]
        for h in range(H):
            row, own, mine = (b * G + h * G // H) * room * D, (b * H + h) * D, (b * H + h) * longest
            for d in range(own, own + D):
                out[d] = 0
            for t in range(first, until - 3, 4):
                i, a = mine + t, row + t * D
                p0, p1, p2, p3 = p[i], p[i + 1], p[i + 2], p[i + 3]
                a1, a2, a3 = a + D, a + 2 * D, a + 3 * D
                for d in range(D):
                    out[own + d] += (
                        p0 * values[a + d] + p1 * values[a1 + d]
                        + p2 * values[a2 + d] + p3 * values[a3 + d]
                    )  # fmt: skip
            for t in range(until - (until - first) % 4, until):
                w, a = p[mine + t], row + t * D
                for d in range(D):
                    out[own + d] += w * values[a + d]
