"""Long work on many tasks: one process per core, one bar per task, and a clean stop.

Two threads that both spin are slower than one, so every process computes with one thread.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.managers import SyncManager
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from server.cli.common import notes

Report = Callable[[int, int, float | str], None]
"""Called with (steps done, steps in all, the loss or what is done just now)."""

_reports: Any = None  # each worker process's way back to the bars


def run_jobs(work: Callable[..., None], names: Sequence[str], workers: int, *args: object) -> None:
    """Call `work(name, *args, report)` for every name, `workers` at a time.

    Raises:
        What the first job that failed raised, once the running ones are done.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the children when they import torch
    context = multiprocessing.get_context("spawn")
    manager = SyncManager(ctx=context)
    manager.start(_watch_parent)
    reports = manager.Queue()
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=notes) as bars:
        stop = threading.Event()
        reader = threading.Thread(target=_show, args=(bars, reports, len(names), stop))
        reader.start()
        try:
            with ProcessPoolExecutor(workers, context, _start, (reports,)) as pool:
                jobs = [pool.submit(_run, work, name, args) for name in names]
                for job in as_completed(jobs):
                    if job.exception():
                        pool.shutdown(cancel_futures=True)
                    job.result()
        finally:
            stop.set()
            reader.join()


def _start(reports: Any) -> None:
    global _reports
    _reports = reports
    _watch_parent()
    import torch

    torch.set_num_threads(1)


def _watch_parent() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Who is killed leaves no job behind; all files are written so that a kill does no harm."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _run(work: Callable[..., None], name: str, args: Sequence[object]) -> None:
    work(name, *args, lambda done, total, note: _reports.put((name, done, total, note)))
    _reports.put((name, None, None, 0.0))


def _show(bars: Progress, reports: Any, count: int, stop: threading.Event) -> None:
    """Keep one bar for all tasks and one for each that runs."""
    whole = bars.add_task("tasks", total=count, note="")
    rows: dict[str, Any] = {}
    while not stop.is_set() or not reports.empty():
        try:
            name, done, total, note = reports.get(timeout=0.2)
        except queue.Empty:
            continue
        if name not in rows:
            rows[name] = bars.add_task(name, total=total, note="")
        if done is None:
            bars.advance(whole)
            bars.update(rows[name], visible=False)
        else:
            told = note if isinstance(note, str) else f"loss {note:.3f}"
            bars.update(rows[name], completed=done, total=total, note=told)
