"""`sailplane batch`: files, exit codes, and a run that is killed and gone on with."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHOICES = [{"value": "yes"}, {"value": "no"}]
QUESTION = {"type": "choice", "instructions": "Answer.", "choices": CHOICES}


def request(custom_id: str, **more: object) -> dict[str, object]:
    body = {"model": "auto", "input": f"Will it rain on day {custom_id}?", "questions": [QUESTION]}
    return {
        "custom_id": custom_id, "method": "POST", "url": "/v1/decisions", "body": {**body, **more}
    }  # fmt: skip


@pytest.fixture
def source(tmp_path):
    """Write the input: one line for each of these."""

    def write(*lines: object) -> Path:
        path = tmp_path / "in.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        return path

    return write


@pytest.fixture
def settings(library):
    return ("--backbone", "tiny-random", "--library", str(library), "--threads", "1")


@pytest.fixture
def batch(run, settings):
    return lambda *more: run("batch", *map(str, more), *settings)


def ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def test_every_line_is_answered_and_said_so(batch, source, tmp_path):
    out = tmp_path / "out.jsonl"
    result = batch(source(*map(request, "abc")), out)
    assert result.exit_code == 0, result.output
    assert sorted(ids(out)) == ["a", "b", "c"]
    assert "Answered 3 lines in" in result.stderr
    assert "samples/s" in result.stderr
    assert result.stdout == ""
    answer = json.loads(out.read_text().splitlines()[0])
    assert set(answer) == {"id", "custom_id", "response", "error"}
    assert set(answer["response"]) == {"status_code", "request_id", "body"}
    assert answer["response"]["body"]["answers"][0]["choice"] in ("yes", "no")


def test_failed_lines_end_with_1_now_and_when_nothing_is_left(batch, source, tmp_path):
    lines = source(request("a"), request("b", model="wether"), {"custom_id": "c"})
    for _ in range(2):
        result = batch(lines, tmp_path / "out.jsonl")
        assert result.exit_code == 1
        assert "2 lines failed" in result.stderr
        assert "1 model_not_found" in result.stderr
        assert "1 invalid_line" in result.stderr
    assert "3 lines were answered before" in result.stderr
    assert len(ids(tmp_path / "out.jsonl")) == 3


def test_a_torn_line_is_cut_off_and_asked_again(batch, source, tmp_path):
    lines, out = source(*map(request, "abc")), tmp_path / "out.jsonl"
    batch(lines, out)
    whole = out.read_bytes()
    out.write_bytes(whole[:-30])
    result = batch(lines, out)
    assert "2 lines were answered before" in result.stderr
    assert sorted(ids(out)) == ["a", "b", "c"]
    assert out.read_bytes().startswith(whole[: whole[:-1].rindex(b"\n") + 1])


def test_again_starts_over(batch, source, tmp_path):
    lines, out = source(*map(request, "abc")), tmp_path / "out.jsonl"
    batch(lines, out)
    lines = source(*map(request, "cdx"))
    refused = batch(lines, out)
    assert refused.exit_code == 1
    assert "--again" in refused.stderr
    assert sorted(ids(out)) == ["a", "b", "c"]
    assert batch(lines, out, "--again").exit_code == 0
    assert sorted(ids(out)) == ["c", "d", "x"]


def test_what_must_not_be_written_is_not(batch, source, tmp_path):
    lines = source(request("a"))
    kept = lines.read_text()
    notes = tmp_path / "notes"
    notes.write_text("notes of mine")
    reasons = {
        lines: "is the input",
        notes: "name another output",
        tmp_path: "expected a plain file",
        tmp_path / "no" / "out": "No such file",
    }
    for out, reason in reasons.items():
        for more in ((), ("--again",)):
            result = batch(lines, out, *more)
            assert result.exit_code == 1
            assert reason in result.stderr
    assert lines.read_text() == kept
    assert notes.read_text() == "notes of mine"


def test_an_input_that_is_no_plain_file_is_told(batch, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "No such file" in batch(tmp_path / "nothing", tmp_path / "out").stderr
    assert "expected a plain file" in batch(tmp_path / "pipe", tmp_path / "out").stderr


def test_standard_streams_are_no_files(batch, source):
    assert batch(source(request("a")), "-").exit_code == 2


def test_two_runs_do_not_write_to_one_file(batch, source, tmp_path):
    with (tmp_path / "out").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = batch(source(request("a")), tmp_path / "out")
    assert result.exit_code == 1
    assert "another run writes to it" in result.stderr


def test_a_killed_run_is_gone_on_with_and_nothing_is_answered_twice(
    batch, source, settings, tmp_path
):
    lines, out = source(*(request(str(i)) for i in range(800))), tmp_path / "out.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", "from server.cli import app; app()", "batch", lines, out, *settings],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not out.exists() or out.stat().st_size < 20_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = out.read_bytes()
    assert before.count(b"\n") < 800
    assert batch(lines, out).exit_code == 0
    assert sorted(map(int, ids(out))) == list(range(800))
    assert out.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
