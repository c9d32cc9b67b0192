"""Memory of the whole process: what is freed is kept, and what stays is not looked at again.

A pass allocates and frees tensors of several MB. The C library gives such blocks back to the system
at once and gets them anew for the next layer, and every page of them then costs a fault: up to a
fifth of a cold batch on a virtual machine. Knows no tensors.
"""

from __future__ import annotations

import ctypes
import gc
import sys

# Of mallopt(3), from <malloc.h>.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 256 * 2**20
LARGEST = 32 * 2**20  # glibc takes no more


def keep_freed() -> bool:
    """Keep up to 256 MB of freed memory, and blocks below 32 MB out of the system's hands.

    Returns:
        Whether it was done: only glibc on Linux has these settings.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(M_MMAP_THRESHOLD, LARGEST), mallopt(M_TRIM_THRESHOLD, KEPT)])


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
