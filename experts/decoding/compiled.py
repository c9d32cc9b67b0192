"""Loops over the kept tokens of running rows, for `latest`: see `experts.native`.

Flat arrays of one type of numbers: of B rows with H query heads that share G heads of keys and
values, `room` tokens of D numbers each, of which row b has `at[b]` before its newest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experts.native.sums import DOTS, ROWS, add_dot, add_dots, add_row, add_rows, inline


@inline
def _span(newest: int, window: int) -> tuple[int, int]:
    """The tokens that are seen: from which one, and up to which."""
    return (max(0, newest + 1 - window) if window else 0), newest + 1


@inline
def _keep(kept: Any, new: Any, newest: int, b: int, G: int, D: int, room: int) -> None:
    """Copy what is new (B, G, D) of row b to its end."""
    for g in range(b * G, (b + 1) * G):
        for d in range(D):
            kept[(g * room + newest) * D + d] = new[g * D + d]


def products(
    s: Any, q: Any, k: Any, keys: Any, at: Any, scale: float,
    B: int, H: int, G: int, D: int, room: int, longest: int, window: int,
) -> None:  # fmt: skip
    """Keep the newest keys k (B, G, D), and let `s_bht = q_bh . key_t * scale`; -inf where hidden.

    Products stand in (B, H, longest).
    """
    for b in range(B):
        _keep(keys, k, at[b], b, G, D, room)
        first, until = _span(at[b], window)
        for h in range(H):
            row, own, mine = (b * G + h * G // H) * room * D, (b * H + h) * D, (b * H + h) * longest
            for t in range(longest):
                s[mine + t] = 0 if first <= t < until else -np.inf
            for t in range(first, until - DOTS + 1, DOTS):
                add_dots(s, mine + t, keys, row + t * D, D, q, own, D)
            for t in range(until - (until - first) % DOTS, until):
                add_dot(s, mine + t, keys, row + t * D, q, own, D)
            for t in range(first, until):
                s[mine + t] *= scale


def mixtures(
    out: Any, p: Any, v: Any, values: Any, at: Any,
    B: int, H: int, G: int, D: int, room: int, longest: int, window: int,
) -> None:  # fmt: skip
    """Keep the newest values v (B, G, D), and let `out_bh = sum_t p_bht value_t`."""
    for b in range(B):
        _keep(values, v, at[b], b, G, D, room)
        first, until = _span(at[b], window)
        for h in range(H):
            row, own, mine = (b * G + h * G // H) * room * D, (b * H + h) * D, (b * H + h) * longest
            for d in range(own, own + D):
                out[d] = 0
            for t in range(first, until - ROWS + 1, ROWS):
                add_rows(out, own, p, mine + t, values, row + t * D, D, D)
            for t in range(until - (until - first) % ROWS, until):
                add_row(out, own, p, mine + t, values, row + t * D, D)
