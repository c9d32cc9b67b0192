"""`sailplane serve` as a process: it starts, answers, and ends cleanly; bad settings end it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import load_file

from tests.architectures import write_checkpoint

ROOT = Path(__file__).parents[3]
START = 90  # seconds; importing torch is most of it


Server = tuple[subprocess.Popen[bytes], str]


@pytest.fixture
def serve(library: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server on `tiny-random`: when it is ready, its process and address."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(serving(library, tmp_path, options))


@contextmanager
def serving(
    library: Path, folder: Path, options: Sequence[str], scheme: str = "http"
) -> Iterator[Server]:
    port = 20000 + os.getpid() % 20000
    process = subprocess.Popen(
        [sys.executable, "-c", "from server.cli import app; app()", "serve",
         "--backbone", "tiny-random", "--library", str(library), "--port", str(port), *options],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    address = f"{scheme}://127.0.0.1:{port}"
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
            if httpx.get(f"{address}/ready", verify=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail("the server did not become ready")


CHOICES = [{"value": "a"}, {"value": "b"}]
QUESTION = {"type": "choice", "instructions": "Say.", "choices": CHOICES}
BODY = {"model": "auto", "input": "Hello.", "questions": [QUESTION]}


def test_it_answers_and_ends_with_0_on_sigterm(serve):
    process, address = serve("--linger-seconds", "3")
    answer = httpx.post(f"{address}/v1/decisions", json=BODY)
    assert answer.status_code == 200, answer.text
    assert sum(p["probability"] for p in answer.json()["answers"][0]["probabilities"]) == (
        pytest.approx(1)
    )
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)  # uvicorn looks at its flag ten times a second; then it lingers
    ready = httpx.get(f"{address}/ready")
    assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
    assert httpx.post(f"{address}/v1/decisions", json=BODY).status_code == 200
    assert process.wait(timeout=30) == 0


def test_a_second_interrupt_skips_the_lingering(serve):
    process, address = serve("--linger-seconds", "600")
    process.send_signal(signal.SIGINT)
    while httpx.get(f"{address}/ready").status_code != 503:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)


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


@pytest.mark.parametrize("architecture", ["llama", "t5"])
def test_a_backbone_of_pickles_ends_with_1_and_says_why(run, library, tmp_path, architecture):
    folder = write_checkpoint(tmp_path, architecture, {}).folder
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    result = run("serve", "--backbone", str(folder), "--library", str(library))
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert re.search("Error: Cannot load .* only pytorch_model.bin", result.output)
