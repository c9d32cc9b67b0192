"""The output file of a batch: one run writes it at a time, one whole line after the other.

A kill leaves complete lines and at most one torn one. Knows nothing of what a line says.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from server.errors import BatchFileError


class Output:
    """An open output; `file` is at its beginning and may be read until `begin`."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def begin(self, end: int) -> None:
        """Cut off what stands after `end` bytes, and write from there on."""
        self.file.seek(end)
        self.file.truncate()

    def write(self, line: bytes) -> None:
        """Add a line and hand it to the system: it survives a kill of this process."""
        self.file.write(line + b"\n")
        self.file.flush()

    def sync(self) -> None:
        """Wait until what was written would survive a power cut."""
        os.fsync(self.file.fileno())


@contextmanager
def open_output(path: Path) -> Generator[Output]:
    """Open the output, a new one or one to go on with, and keep other runs from it.

    Raises:
        BatchFileError: another run writes to it, or it is no plain file.
    """
    if path.exists() and not path.is_file():
        raise BatchFileError(f"{path}: expected a plain file, so that a run can be resumed.")
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BatchFileError(f"{path}: another run writes to it; wait for its end.") from None
        yield Output(file)
