"""Sums that compiled loops are made of: functions that numba puts in the place of their calls.

Imported by modules of such loops alone, since it needs numba.
"""

from __future__ import annotations

from typing import Any

import numba

from experts.native import REORDERED

inline = numba.njit(inline="always", fastmath=REORDERED)
DOTS, ROWS = 8, 4
"""Rows that `add_dots` and `add_rows` take at a time: so many are on their way from memory."""


@inline
def add_dot(s: Any, i: int, A: Any, a: int, x: Any, b: int, count: int) -> None:
    """Add to `s[i]` the product of `count` numbers of A, from a on, with those of x, from b on."""
    total = s[i]
    for d in range(count):
        total += A[a + d] * x[b + d]
    s[i] = total


@inline
def add_dots(s: Any, i: int, A: Any, a: int, step: int, x: Any, b: int, count: int) -> None:
    """`add_dot` for `DOTS` rows of A, `step` apart, each number of x being read once."""
    a1, a2, a3, a4 = a + step, a + 2 * step, a + 3 * step, a + 4 * step
    a5, a6, a7 = a + 5 * step, a + 6 * step, a + 7 * step
    s0, s1, s2, s3 = s[i], s[i + 1], s[i + 2], s[i + 3]
    s4, s5, s6, s7 = s[i + 4], s[i + 5], s[i + 6], s[i + 7]
    for d in range(count):
        v = x[b + d]
        s0 += A[a + d] * v
        s1 += A[a1 + d] * v
        s2 += A[a2 + d] * v
        s3 += A[a3 + d] * v
        s4 += A[a4 + d] * v
        s5 += A[a5 + d] * v
        s6 += A[a6 + d] * v
        s7 += A[a7 + d] * v
    s[i], s[i + 1], s[i + 2], s[i + 3] = s0, s1, s2, s3
    s[i + 4], s[i + 5], s[i + 6], s[i + 7] = s4, s5, s6, s7


@inline
def add_row(y: Any, c: int, z: Any, i: int, B: Any, b: int, count: int) -> None:
    """Add `count` numbers of B, from b on, times `z[i]` to those of y, from c on."""
    z0 = z[i]
    for k in range(count):
        y[c + k] += z0 * B[b + k]


@inline
def add_rows(y: Any, c: int, z: Any, i: int, B: Any, b: int, step: int, count: int) -> None:
    """`add_row` for `ROWS` rows of B, `step` apart, times `z[i]`, `z[i + 1]` and so on."""
    b1, b2, b3 = b + step, b + 2 * step, b + 3 * step
    z0, z1, z2, z3 = z[i], z[i + 1], z[i + 2], z[i + 3]
    for k in range(count):
        y[c + k] += z0 * B[b + k] + z1 * B[b1 + k] + z2 * B[b2 + k] + z3 * B[b3 + k]
