"""The machine's own limits: a file that cannot be opened or written for now may be sound.

Knows error numbers; knows nothing of experts or folders.
"""

from __future__ import annotations

import errno

from experts.errors import SystemExhausted

EXHAUSTED = (
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT,
)  # fmt: skip


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
