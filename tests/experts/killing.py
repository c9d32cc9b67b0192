"""Work in another process that is killed: at a chosen step of its, or by the clock."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STEPS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.copyfile")


def run_killed(
    work: Callable[[], object], *, at: int | None = None, after: float | None = None
) -> bool:
    """Run `work` in another process, and SIGKILL that.

    Args:
        at: before this change of the file system, counted from 0. after: these seconds from the
            start of the work. With neither it lives.

    Returns:
        Whether it came to its end all the same.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=_run, args=(work, at, sender))
    child.start()
    receiver.recv()
    if after is not None:
        time.sleep(after)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL), "the work failed by itself"
    return child.exitcode == 0


def _run(work: Callable[[], object], at: int | None, started: Connection) -> None:
    torch.set_num_threads(1)
    left = at

    def watch(event: str, given: tuple[object, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(given[2], int) and given[2] & WRITES
        if left is None or not (writes or event in STEPS):
            return
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    started.send("started")
    sys.addaudithook(watch)
    work()
