"""The machine's own limits: a file that cannot be opened or written for now may be sound.

Knows error numbers, and how torch says that memory is short; nothing of experts or folders.
"""

from __future__ import annotations

import errno

import torch

from experts.errors import LibraryUnreachable, SystemExhausted

EXHAUSTED = (
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT,
)  # fmt: skip

OUT_OF_REACH = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTDIR, errno.ELOOP,
)  # fmt: skip
NO_PRIMITIVE = "could not create a primitive"
NO_MEMORY = (
    "can't allocate memory", "out of memory", "bad_alloc", "can't start new thread", NO_PRIMITIVE,
)  # fmt: skip
"""What stands in errors of torch, on a CPU, and of threads: they have no class of their own."""


def as_exhausted(error: Exception) -> Exception:
    """The same error, or `SystemExhausted` where it says that there is no memory left.

    oneDNN keeps such a failure in the thread, and fails there for ever after: from then on torch
    computes without it.
    """
    said = str(error).lower()
    if NO_PRIMITIVE in said:
        torch.backends.mkldnn.set_flags(False)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in NO_MEMORY)
    ):
        return SystemExhausted(
            "The machine has no memory left for this: ask for less at a time, or give it more."
        )
    return error


def raise_if_exhausted(error: OSError) -> None:
    """Tell a machine that has no more to give from a file that cannot be read.

    Raises:
        SystemExhausted: it is out of file handles, memory or room on a disk.
    """
    if error.errno in EXHAUSTED:
        raise SystemExhausted(
            f"The machine is out of resources ({error.strerror}): it needs a higher limit of open "
            "files (ulimit -n), more memory, or room on the library's disk."
        ) from error


def raise_if_unreachable(error: OSError) -> None:
    """Tell a library's folder that cannot be used from a change of it that fails.

    Raises:
        LibraryUnreachable: it may not be read or written, or its disk fails.
        SystemExhausted: see `raise_if_exhausted`.
    """
    raise_if_exhausted(error)
    if error.errno in OUT_OF_REACH:
        raise LibraryUnreachable(
            f"The library's folder cannot be read or written ({error.strerror}); what was read of "
            "it stays."
        ) from error
