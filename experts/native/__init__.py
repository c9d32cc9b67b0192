"""Plain loops as machine code, by numba, where it is installed (`sailplane[fast]`).

Called by address, so that Python's lock is free while they run. Knows types and signatures; what
the loops compute stands beside what calls them, in modules that nothing else imports.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
# Sums in any order, so that they fill vector registers. Not `nnan` and `ninf`: what overflows must
# stay visible.
REORDERED = {"reassoc", "contract", "nsz", "arcp"}


@cache
def installed() -> bool:
    """Whether numba is."""
    return find_spec("numba") is not None


def serves(like: Tensor) -> bool:
    """Whether loops do for tensors of this type and place, and for this thread.

    They run on one core, for passes that need no gradients.
    """
    return (
        like.dtype in DTYPES
        and like.device.type == "cpu"
        and installed()
        and not torch.is_grad_enabled()
        and torch.get_num_threads() == 1
    )


def prepare(module: str, dtype: torch.dtype, *functions: tuple[str, str]) -> None:
    """Compile functions of a module before a pass has to wait for it, where they may serve.

    Args:
        functions: name and signature of each; see `loops`.
    """
    if installed() and dtype in DTYPES:
        for name, signature in functions:
            loops(module, name, signature, dtype)


@cache
def loops(module: str, name: str, signature: str, dtype: torch.dtype) -> Callable[..., None]:
    """A function of a module as machine code; the first call takes a second.

    Args:
        signature: a letter for each argument: the address of numbers (n) of the type, or of
            indices (i, int64); an integer (k), or a float64 (f).
    """
    import numba
    from numba import types

    pointers = {
        "n": types.CPointer(getattr(types, DTYPES[dtype])),
        "i": types.CPointer(types.int64),
    }
    compiled = {**pointers, "k": types.int64, "f": types.float64}
    called = {"n": ctypes.c_void_p, "i": ctypes.c_void_p, "k": ctypes.c_int64, "f": ctypes.c_double}
    made: Any = numba.cfunc(types.void(*(compiled[s] for s in signature)), fastmath=REORDERED)(
        getattr(import_module(module), name)
    )
    call = ctypes.CFUNCTYPE(None, *(called[s] for s in signature))(made.address)
    call.keeps = made  # type: ignore[attr-defined]
    return call


def dense(tensor: Tensor, *shape: int) -> Tensor:
    """The numbers side by side, as loops count on; they check nothing.

    Raises:
        ValueError: the shape is another.
    """
    if tensor.shape != shape:
        raise ValueError(f"Expected a tensor of shape {shape}, not {tuple(tensor.shape)}.")
    return tensor.contiguous()


def require_one_type(*tensors: Tensor) -> None:
    """Raise ValueError where tensors are of several types."""
    if len({t.dtype for t in tensors}) > 1:
        raise ValueError(f"Expected one type of numbers, not {[t.dtype for t in tensors]}.")
