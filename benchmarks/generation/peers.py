"""Peers that generate: vLLM, and transformers with PEFT, each in a process of its own.

A peer is told one job and then measured turn by turn, side by side with whatever it is compared to.
Between its turns it stands still: threads that wait actively would take a core from the others.
What a job holds is described in `vllm_worker.py` and `transformers_worker.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.generation.vllm_env import setup
from benchmarks.places import ROOT
from benchmarks.processes import BenchmarkError, pinned, stop

VLLM_WORKER = Path(__file__).with_name("vllm_worker.py")
TRANSFORMERS_WORKER = "benchmarks.generation.transformers_worker"


class Peer:
    """A worker that has loaded its job and warmed up, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._line()
        self._signal(signal.SIGSTOP)

    def measure(self) -> dict[str, Any]:
        """One run: what the worker answers.

        Raises:
            BenchmarkError: the worker ended.
        """
        assert self.process.stdin is not None
        self._signal(signal.SIGCONT)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._line()
        self._signal(signal.SIGSTOP)
        return answer

    def _signal(self, told: signal.Signals) -> None:
        os.killpg(self.process.pid, told)

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise BenchmarkError("A peer ended; its own message is above.")
        return json.loads(line)


@contextmanager
def vllm(job: Mapping[str, Any], on: Sequence[int]) -> Generator[Peer]:
    """A process of vLLM on these cores, with as many threads, until the context ends."""
    python = setup()
    with _peer([str(python), str(VLLM_WORKER)], job, on, "PASSIVE") as peer:
        yield peer


@contextmanager
def transformers(job: Mapping[str, Any], on: Sequence[int]) -> Generator[Peer]:
    """One of transformers in the same way, with PEFT where the job has adapters."""
    # With threads that wait actively `generate` writes 2.5 times as fast with PEFT; continuous
    # batching, which has a thread of its own, half as fast.
    waits = "ACTIVE" if job["batch"] else None
    with _peer([sys.executable, "-m", TRANSFORMERS_WORKER], job, on, waits) as peer:
        yield peer


@contextmanager
def _peer(
    command: Sequence[str], job: Mapping[str, Any], on: Sequence[int], waits: str | None
) -> Generator[Peer]:
    told = json.dumps({**job, "threads": len(on)})
    env = {**os.environ, "OMP_NUM_THREADS": str(len(on))}
    if waits:
        env["OMP_WAIT_POLICY"] = waits
    process = subprocess.Popen(
        pinned([*command, told], on), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=env, cwd=ROOT, process_group=0,
    )  # fmt: skip
    # In a group of this session, not a session of its own: should we be killed while it stands
    # still, the system ends it.
    try:
        yield Peer(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
        stop(process)
