"""The log of runs that ask test files of held-out tasks: those are for reports only.

A line of JSON each. Holds no text of any example.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.documents import commit
from benchmarks.places import RESULTS

LOG = RESULTS / "held_out_runs.jsonl"


def note_run(path: Path = LOG, **said: object) -> None:
    """Note a run before it asks: when, by which code, and what else is said of it."""
    line = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(), **said}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
