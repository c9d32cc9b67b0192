"""Memory of the whole process: what is freed is kept, and what stays is not looked at again.

A pass allocates and frees tensors of several MB. The C library gives such blocks back to the system
at once and gets them anew for the next layer, and every page of them then costs a fault: up to a
fifth of a cold batch on a virtual machine. It also gives threads heaps of their own, of which each
keeps what its own busiest moment left: one heap serves whoever needs it, and stops growing sooner.
Knows no tensors.
"""

from __future__ import annotations

import ctypes
import gc
import sys

# Of mallopt(3), from <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT = 256 * 2**20
LARGEST = 32 * 2**20  # glibc takes no more


def keep_freed() -> bool:
    """Keep up to 256 MB of freed memory in one heap, and blocks below 32 MB in it.

    For before threads begin: a heap that a thread has stays its own.

    Returns:
        Whether it was done: only glibc on Linux has these settings.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = {M_MMAP_THRESHOLD: LARGEST, M_TRIM_THRESHOLD: KEPT, M_ARENA_MAX: 1}
    taken = [mallopt(name, value) for name, value in wanted.items()]
    return all(taken)


def give_back_freed() -> bool:
    """Give freed memory back to the system, also what lies between blocks in use.

    For after much was read and little of it kept.

    Returns:
        Whether anything was given back: only glibc can.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return trim is not None and trim(0) == 1


def spare_collector() -> None:
    """Have the garbage collector never look again at what is there now.

    For when all that stays is loaded. A full collection goes through every object, those of all
    modules and models too: a pause of 0.3 to 0.5 s at a server, every ten seconds under load.
    """
    gc.collect()
    gc.freeze()
