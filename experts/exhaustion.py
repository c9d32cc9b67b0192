"""The machine's own limits: a file that cannot be opened for now may be sound.

Knows error numbers; knows nothing of experts or folders.
"""

from __future__ import annotations

import errno

from experts.errors import SystemExhausted

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


def raise_if_exhausted(error: OSError) -> None:
    """Tell a machine that has no more to give from a file that cannot be read.

    Raises:
        SystemExhausted: it is out of file handles or memory.
    """
    if error.errno in EXHAUSTED:
        raise SystemExhausted(
            f"The machine is out of resources ({error.strerror}); it may need a higher limit "
            "(ulimit -n), or more memory."
        ) from error
