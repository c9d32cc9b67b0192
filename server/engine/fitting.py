"""Gates fitted while requests are answered: one expert at a time, in a thread that gives way.

The thread has low priority and a lane of its own, so that requests wait for it at no lock and
hardly on a core. What it makes becomes the expert's next version in one step; until then, and
whenever it is stopped, the expert answers as it was described. Examples are held in memory alone.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from experts.entries import Entry, read_manifest
from experts.errors import BadExpert, ExpertError
from experts.training.data import Example
from routers.fitting.build import fit_described, foreign_words
from server.engine.run import Engine
from server.errors import Draining, QueueFull

log = logging.getLogger("sailplane.fitting")
MAX_WAITING = 16
RETRY_SECONDS = 30
NICER = 10
"""How much nicer the thread is than the server: a busy core gives it a tenth of what others get."""

REPLACED = "The expert was replaced or removed by somebody else meanwhile."

Change = Callable[[Callable[[], None]], None]
"""Makes a change of the library in turn with all others, and waits for it."""


@dataclass(frozen=True)
class Fit:
    """How far the fit of an expert is: `done` of `total` steps; `message` says why it failed."""

    state: Literal["queued", "running", "done", "failed"]
    done: int = 0
    total: int = 0
    message: str = ""


@dataclass(frozen=True, eq=False)
class Job:
    """One expert to fit: this version of it, from these inputs, some of which have labels."""

    entry: Entry
    inputs: Sequence[str]
    examples: Sequence[Example]


class Stopped(Exception):
    """Nobody wants the fit any more."""


class Fits:
    """The fits that wait and run, and how the last one of each expert ended.

    Args:
        engine: whose experts are fitted. change: see `Change`. stopping: whether the server ends.
        ended: told the state of each fit that ended.
    """

    def __init__(
        self, engine: Engine, change: Change, *, stopping: Callable[[], bool] = lambda: False,
        ended: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._engine, self._change = engine, change
        self._stopping, self._ended = stopping, ended
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._wanted: dict[str, Job] = {}
        self._fits: dict[str, Fit] = {}
        self._thread: threading.Thread | None = None

    def of(self, id: str) -> Fit | None:
        """How far the fit of an expert is; None where none was asked for."""
        return self._fits.get(id)

    def require_room(self) -> None:
        """Check that another fit may wait.

        Raises:
            QueueFull: too many do.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise QueueFull(f"{MAX_WAITING} fits wait already; send labels later.",
                            retry_after=RETRY_SECONDS)  # fmt: skip

    def put(self, job: Job) -> None:
        """Fit an expert when its turn comes, in the place of any fit of the same id."""
        id = job.entry.id
        with self._lock:
            self._drop(id)
            self._waiting.append(job)
            self._wanted[id], self._fits[id] = job, Fit("queued")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="fit", daemon=True)
                self._thread.start()

    def cancel(self, id: str) -> None:
        """Stop and forget the fit of an expert that was removed or replaced."""
        with self._lock:
            self._drop(id)

    def close(self, timeout: float | None = None) -> None:
        """Stop all fits and wait for the thread, which notices between two passes."""
        with self._lock:
            for id in list(self._wanted):
                self._drop(id)
            thread = self._thread
        if thread is not None:
            thread.join(timeout)

    def _drop(self, id: str) -> None:
        self._fits.pop(id, None)
        job = self._wanted.pop(id, None)
        if job in self._waiting:
            self._waiting.remove(job)

    def _work(self) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own
            thread, own = threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, thread, min(19, own + NICER))
        while job := self._next():
            self._run(job)

    def _next(self) -> Job | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._thread = None
            return None

    def _run(self, job: Job) -> None:
        """Fit one expert; whatever happens, the thread goes on."""
        try:
            self._fit(job)
            self._end(job, "done")
        except (Stopped, Draining):
            return
        except ExpertError as error:
            self._end(job, "failed", REPLACED if _is_gone(job.entry) else error.message)
        except Exception:
            log.exception("expert %s could not be fitted", job.entry.id)
            self._end(job, "failed", "The server failed; its log has the reason.")

    def _fit(self, job: Job) -> None:
        engine, id = self._engine, job.entry.id

        def told(done: int, total: int, _loss: float) -> None:
            self._require_wanted(job)
            self._note(job, Fit("running", done, total))

        told(0, 0, 0.0)
        others = {i: e.manifest for i, e in engine.library.entries.items() if i != id}
        backbone = engine.backbone.aside(lambda: self._require_wanted(job))
        artefacts = fit_described(
            backbone, engine.embedder, job.entry, job.inputs, job.examples,
            foreign_words(others), engine.routing.metric, told,
        )  # fmt: skip

        def write() -> None:
            self._require_wanted(job)
            with engine.changing():
                engine.library.refit(job.entry, artefacts)

        self._change(write)

    def _require_wanted(self, job: Job) -> None:
        if self._stopping() or self._wanted.get(job.entry.id) is not job:
            raise Stopped

    def _note(self, job: Job, fit: Fit) -> None:
        with self._lock:
            if self._wanted.get(job.entry.id) is job:
                self._fits[job.entry.id] = fit

    def _end(self, job: Job, state: Literal["done", "failed"], message: str = "") -> None:
        id = job.entry.id
        with self._lock:
            if self._wanted.get(id) is not job:  # what came of a fit that nobody wants is no news
                return
            del self._wanted[id]
            self._fits[id] = replace(self._fits[id], state=state, message=message)
        self._ended(state)


def _is_gone(entry: Entry) -> bool:
    """Whether other files lie where an expert was: nothing is wrong with it then."""
    try:
        return not Entry(entry.path, read_manifest(entry.path)).same_tensors(entry)
    except BadExpert:
        return True
