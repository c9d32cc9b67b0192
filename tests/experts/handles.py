"""A machine that has no file handle to spare."""

from __future__ import annotations

import os
import resource
from collections.abc import Generator
from contextlib import contextmanager

FEW = 16


@contextmanager
def no_handle_left() -> Generator[None]:
    """Within this, nothing can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + FEW, hard))
    try:
        while True:
            try:
                taken.append(os.dup(taken[0]))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in taken:
            os.close(handle)
