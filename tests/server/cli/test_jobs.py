"""Jobs in processes of their own, and what becomes of them when who started them is killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from server.cli.jobs import run_jobs


def note(name, folder, report):
    report(1, 1, "written")
    (Path(folder) / name).write_text(str(os.getpid()))


def fail(name, _report):
    raise ValueError(name)


def wait(name, folder, report):
    note(name, folder, report)
    time.sleep(600)


def test_every_job_is_done_in_another_process(tmp_path):
    run_jobs(note, ["a", "b", "c"], 2, str(tmp_path))
    told = {path.name: int(path.read_text()) for path in tmp_path.iterdir()}
    assert set(told) == {"a", "b", "c"}
    assert os.getpid() not in told.values()


def test_what_a_job_raises_is_raised():
    with pytest.raises(ValueError, match="a"):
        run_jobs(fail, ["a"], 1)


def test_a_killed_run_leaves_nothing_behind(tmp_path):
    code = f"from tests.server.cli.test_jobs import *; run_jobs(wait, ['a'], 1, {str(tmp_path)!r})"
    main = f"if __name__ == '__main__':\n    {code}"
    (tmp_path / "main.py").write_text(main)
    run = subprocess.Popen(
        [sys.executable, tmp_path / "main.py"], env={**os.environ, "PYTHONPATH": "."},
        start_new_session=True,
    )  # fmt: skip
    until(lambda: (tmp_path / "a").exists() and (tmp_path / "a").read_text())
    assert len(running(run.pid)) > 3, "the run, its job, what passes on reports, and a tracker"
    run.send_signal(signal.SIGKILL)
    run.wait()
    until(lambda: not running(run.pid))


def running(session):
    """The processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
            if int(of) == session and state != "Z":
                found.append(stat.parent.name)
    return found


def until(done, seconds=60):
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)
