"""Sums that compiled loops are made of; see `experts.native`.

Imported by modules of such loops alone, since it needs numba.
"""

from __future__ import annotations

from typing import Any

import numba

from experts.native import REORDERED

inline = numba.njit(inline="always", fastmath=REORDERED)


@inline
def dot(total: Any, A: Any, a: int, x: Any, b: int, count: int) -> Any:
    """A sum of products that goes on from `total`, which also says of what type it is."""
    for d in range(count):
        total += A[a + d] * x[b + d]
    return total


@inline
def dots(
    s0: Any, s1: Any, s2: Any, s3: Any, A: Any, a: int, step: int, x: Any, b: int, count: int
) -> Any:
    """`dot` of four rows with one, each number of which is read once."""
    for d in range(count):
        v = x[b + d]
        s0 += A[a + d] * v
        s1 += A[a + step + d] * v
        s2 += A[a + 2 * step + d] * v
        s3 += A[a + 3 * step + d] * v
    return s0, s1, s2, s3
