"""Loops over pairs of token and expert, for `fused`: see `experts.native`.

Flat arrays of one type of numbers; they know no tensors.
"""

from __future__ import annotations

from typing import Any

from experts.native.sums import DOTS, ROWS, add_dot, add_dots, add_row, add_rows, inline

TILE = 512
"""Columns of a factor at a time: few enough that they stay in the first cache for all tokens."""


@inline
def _read(
    z: Any, A: Any, x: Any, token: Any, weight: Any, p: int, q: int, R: int, D: int, a: int
) -> None:
    """Let z = w x A of one expert's pairs p to q, a tile of columns after the other."""
    for i in range((q - p) * R):
        z[i] = 0
    for d in range(0, D, TILE):
        count = min(TILE, D - d)
        for i in range(p, q):
            if weight[i] == 0:
                continue
            b, at = token[i] * D + d, (i - p) * R
            for r in range(0, R - DOTS + 1, DOTS):
                add_dots(z, at + r, A, a + r * D + d, D, x, b, count)
            for r in range(R - R % DOTS, R):
                add_dot(z, at + r, A, a + r * D + d, x, b, count)
    for i in range(p, q):
        for r in range((i - p) * R, (i - p + 1) * R):
            z[r] *= weight[i]


@inline
def _write(
    y: Any, z: Any, B: Any, token: Any, weight: Any, p: int, q: int, R: int, O: int, a: int
) -> None:
    """Let y += z B of one expert's pairs p to q, a tile of columns after the other."""
    for o in range(0, O, TILE):
        count = min(TILE, O - o)
        for i in range(p, q):
            if weight[i] == 0:
                continue
            c, at, b = token[i] * O + o, (i - p) * R, a + o
            for r in range(0, R - ROWS + 1, ROWS):
                add_rows(y, c, z, at + r, B, b + r * O, O, count)
            for r in range(R - R % ROWS, R):
                add_row(y, c, z, at + r, B, b + r * O, count)


def low_rank_add(
    y: Any, x: Any, A: Any, B: Any, z: Any, weight: Any, token: Any, first: Any,
    E: int, R: int, D: int, O: int,
) -> None:  # fmt: skip
    """`y_n += w (x_n A_e) B_e` for pairs `first[e]` to `first[e + 1]` of every expert e.

    z has room for the products of all pairs.
    """
    for e in range(E):
        p, q = first[e], first[e + 1]
        if p < q:
            _read(z, A, x, token, weight, p, q, R, D, e * R * D)
            _write(y, z, B, token, weight, p, q, R, O, e * R * O)


def scores(s: Any, x: Any, V: Any, expert: Any, N: int, K: int, D: int) -> None:
    """`s_nk = v_e . x_n` for the expert e at place k of token n."""
    for n in range(N):
        for i in range(n * K, (n + 1) * K):
            s[i] = 0
            add_dot(s, i, V, expert[i] * D, x, n * D, D)
