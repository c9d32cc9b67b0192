"""`sailplane serve` as a process: it starts, answers, and ends cleanly; bad settings end it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[3]
START = 90  # seconds; importing torch is most of it


@pytest.fixture
def server(library: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server on `tiny-random`, ready, and its address."""
    port = 20000 + os.getpid() % 20000
    process = subprocess.Popen(
        [sys.executable, "-c", "from server.cli import app; app()", "serve",
         "--backbone", "tiny-random", "--library", str(library), "--port", str(port)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, address)
        yield process, address
    finally:
        process.kill()
        process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], address: str) -> None:
    for _ in range(START * 5):
        assert process.poll() is None, "the server ended while starting"
        try:
            if httpx.get(f"{address}/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail("the server did not become ready")


def test_it_answers_and_ends_with_0_on_sigterm(server):
    process, address = server
    choices = [{"value": "a"}, {"value": "b"}]
    question = {"type": "choice", "instructions": "Say.", "choices": choices}
    body = {"model": "auto", "input": "Hello.", "questions": [question]}
    answer = httpx.post(f"{address}/v1/decisions", json=body)
    assert answer.status_code == 200, answer.text
    assert sum(p["probability"] for p in answer.json()["answers"][0]["probabilities"]) == (
        pytest.approx(1)
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--library", "nowhere"], r"library = 'nowhere': expected a folder that exists"),
        (["--library", ".", "--router", "magic"], r"router = 'magic': expected one of .*default"),
    ],
)
def test_a_value_that_cannot_be_served_ends_with_2(run, options, message):
    result = run("serve", "--backbone", "tiny-random", *options)
    assert result.exit_code == 2
    assert re.search(message, result.output)
