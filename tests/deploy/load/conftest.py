"""Real servers over the demo library, and locust against them."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.places import LIBRARY
from benchmarks.processes import serving
from deploy.load.timeline import read

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Run:
    """What a run of locust left."""

    code: int
    said: str
    seconds: Sequence[dict[str, Any]]
    rows: dict[str, dict[str, str]]
    failures: list[str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Start a server over a library: its address. Adapters may come from `tmp_path/adapters`."""
    adapter = tmp_path / "adapters" / "one"
    adapter.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(LIBRARY / "tweet_stance" / name, adapter)
    with ExitStack() as stack:

        def start(library: Path, *options: str) -> str:
            command = [
                sys.executable, "-c", "from server.cli import app; app()", "serve",
                "--port", "{port}", "--library", str(library), "--adapter-root",
                str(adapter.parent), "--log-level", "warning", *options,
            ]  # fmt: skip
            cores, env = sorted(os.sched_getaffinity(0)), {"PYTHONPATH": str(ROOT)}
            return stack.enter_context(serving(command, cores, "/ready", env))

        yield start


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of the demo library."""
    copy = tmp_path / "library"
    shutil.copytree(LIBRARY, copy, ignore=shutil.ignore_patterns(".*"))
    return copy


@pytest.fixture
def locust(tmp_path: Path) -> Callable[..., Run]:
    """Run a locustfile without its web page."""
    script = Path(sys.executable).with_name("locust")
    if not script.exists():  # not imported: it patches the standard library
        pytest.skip("locust is not installed: pip install 'sailplane[load]'")

    def run(url: str, *options: str, file: str = "locustfile.py") -> Run:
        command = [
            str(script), "-f", str(ROOT / "deploy/load" / file),
            "--headless", "--host", url, "--timeline", str(tmp_path / "timeline.jsonl"),
            "--csv", str(tmp_path / "run"), "--only-summary", "--spawn-rate", "50", "--seed", "1",
            "--stop-timeout", "30", *options,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        seconds, rows, failures = [], {}, []
        if (tmp_path / "run_stats.csv").exists():
            with (tmp_path / "run_stats.csv").open() as file_:
                rows = {row["Name"]: row for row in csv.DictReader(file_)}
            with (tmp_path / "run_failures.csv").open() as file_:
                failures = [row["Error"] for row in csv.DictReader(file_)]
        if (tmp_path / "timeline.jsonl").exists():
            seconds = read(tmp_path / "timeline.jsonl")
        return Run(done.returncode, done.stdout + done.stderr, seconds, rows, failures)

    return run
