"""Loops over pairs of token and expert, compiled by numba.

`fused` calls them by address, so that Python's lock is free while they run. Flat arrays of one
type of numbers; knows no tensors. Imported only where numba is installed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numba
from numba import types

# Sums in any order, so that they fill vector registers. Not `nnan` and `ninf`: what overflows must
# stay visible.
REORDERED = {"reassoc", "contract", "nsz", "arcp"}
TILE = 512
"""Columns of a factor at a time: few enough that they stay in the first cache for all tokens."""

_inline = numba.njit(inline="always", fastmath=REORDERED)


def compiled_add(dtype: str) -> Callable[..., None]:
    """`low_rank_add` of numbers of a type, "float32" or "float64"; arrays are addresses."""
    return _compile(_low_rank_add, dtype, "nnnnnnii", 4)


def compiled_scores(dtype: str) -> Callable[..., None]:
    """`scores`; see `compiled_add`."""
    return _compile(_scores, dtype, "nnni", 3)


def _compile(loops: Any, dtype: str, arrays: str, integers: int) -> Callable[..., None]:
    """Machine code behind a C signature: arrays of numbers (n) or indices (i), then integers."""
    pointer = {"n": types.CPointer(getattr(types, dtype)), "i": types.CPointer(types.int64)}
    signature = types.void(*(pointer[a] for a in arrays), *[types.int64] * integers)
    made: Any = numba.cfunc(signature, fastmath=REORDERED)(loops)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * len(arrays), *[ctypes.c_int64] * integers)(
        made.address
    )
    call.keeps = made  # type: ignore[attr-defined]
    return call


@_inline
def _dot(total: Any, A: Any, a: int, x: Any, b: int, count: int) -> Any:
    """A sum that goes on from `total`, which also says of what type it is."""
    for d in range(count):
        total += A[a + d] * x[b + d]
    return total


@_inline
def _dots(
    s0: Any, s1: Any, s2: Any, s3: Any, A: Any, a: int, step: int, x: Any, b: int, count: int
) -> Any:
    """`_dot` of four rows with one, each number of which is read once."""
    for d in range(count):
        v = x[b + d]
        s0 += A[a + d] * v
        s1 += A[a + step + d] * v
        s2 += A[a + 2 * step + d] * v
        s3 += A[a + 3 * step + d] * v
    return s0, s1, s2, s3


@_inline
def _read(
    z: Any, A: Any, x: Any, token: Any, weight: Any, p: int, q: int, R: int, D: int, a: int
) -> None:
    """Let z = x A of one expert's pairs p to q, a tile of columns after the other."""
    for i in range((q - p) * R):
        z[i] = 0
    for d in range(0, D, TILE):
        count = min(TILE, D - d)
        for i in range(p, q):
            if weight[i] == 0:
                continue
            b, at = token[i] * D + d, (i - p) * R
            for r in range(0, R - 3, 4):
                k = at + r
                z[k], z[k + 1], z[k + 2], z[k + 3] = _dots(
                    z[k], z[k + 1], z[k + 2], z[k + 3], A, a + r * D + d, D, x, b, count
                )
            for r in range(R - R % 4, R):
                z[at + r] = _dot(z[at + r], A, a + r * D + d, x, b, count)


@_inline
def _write(
    y: Any, z: Any, B: Any, token: Any, weight: Any, p: int, q: int, R: int, O: int, a: int
) -> None:
    """Let y += w z B of one expert's pairs p to q, a tile of columns after the other."""
    for o in range(0, O, TILE):
        count = min(TILE, O - o)
        for i in range(p, q):
            w = weight[i]
            if w == 0:
                continue
            c, at = token[i] * O + o, (i - p) * R
            for r in range(0, R - 3, 4):
                b0 = a + r * O + o
                b1, b2, b3 = b0 + O, b0 + 2 * O, b0 + 3 * O
                z0, z1, z2, z3 = z[at + r], z[at + r + 1], z[at + r + 2], z[at + r + 3]
                z0, z1, z2, z3 = z0 * w, z1 * w, z2 * w, z3 * w
                for k in range(count):
                    y[c + k] += z0 * B[b0 + k] + z1 * B[b1 + k] + z2 * B[b2 + k] + z3 * B[b3 + k]
            for r in range(R - R % 4, R):
                z0, b0 = z[at + r] * w, a + r * O + o
                for k in range(count):
                    y[c + k] += z0 * B[b0 + k]


def _low_rank_add(
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


def _scores(s: Any, x: Any, V: Any, expert: Any, N: int, K: int, D: int) -> None:
    """`s_nk = v_e . x_n` for the expert e at place k of token n."""
    for n in range(N):
        for i in range(n * K, (n + 1) * K):
            s[i] = 0
            s[i] = _dot(s[i], V, expert[i] * D, x, n * D, D)
