"""The README's blocks run as they stand, in order, against the servers that it starts."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)\)")
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text("utf-8"))
PATIENCE = 120  # seconds for the server to start

PORTS = {"make serve": "8080", "make serve-text": "8081"}
"""What starts a server, and the port that the README's other blocks find it at."""
SCRIPTS = [
    pytest.param(language, text, id=f"{language}-{i}")
    for i, (language, text) in enumerate(BLOCKS)
    if language in ("bash", "python") and text.strip() not in PORTS
]
ANSWERS = [i for i, (language, _) in enumerate(BLOCKS) if language == "json"]


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, str]]:
    """The ports that the README's servers listen at in place of its own: all of them run."""
    with ExitStack() as servers:
        yield {port: servers.enter_context(serving(command)) for command, port in PORTS.items()}


@contextmanager
def serving(command: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["bash", "-ec", command], cwd=ROOT, start_new_session=True,
        env={**os.environ, "SAILPLANE_PORT": str(port)},
    )  # fmt: skip
    try:
        wait_until_ready(server, port)
        yield str(port)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


def wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(PATIENCE * 4):
        assert server.poll() is None, "the server ended while starting"
        try:
            if httpx.get(f"http://127.0.0.1:{port}/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.25)
    pytest.fail("the server did not become ready")


def run(language: str, text: str, ports: dict[str, str]) -> str:
    program = ["bash", "-ec"] if language == "bash" else [sys.executable, "-c"]
    for said, port in ports.items():
        text = text.replace(f"127.0.0.1:{said}", f"127.0.0.1:{port}")
    done = subprocess.run(
        [*program, text], cwd=ROOT, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def contains(whole: object, part: object) -> bool:
    """Whether `part` is what `whole` says, with parts left out and figures rounded."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and contains(whole[key], value) for key, value in part.items()
        )
    if isinstance(part, list):
        return (
            isinstance(whole, list) and len(whole) >= len(part) and all(map(contains, whole, part))
        )
    if isinstance(part, float):
        return whole == pytest.approx(part, abs=0.05)
    return whole == part


@pytest.mark.parametrize(("language", "text"), SCRIPTS)
def test_a_block_of_the_readme_runs(language: str, text: str, ports: dict[str, str]) -> None:
    assert run(language, text, ports).strip()


def test_the_readme_starts_each_of_its_servers() -> None:
    started = [text.strip() for language, text in BLOCKS if language == "bash"]
    assert [command for command in PORTS if command not in started] == []


@pytest.mark.parametrize("shown", ANSWERS)
def test_an_answer_in_the_readme_is_the_servers(shown: int, ports: dict[str, str]) -> None:
    answer = json.loads(run(*BLOCKS[shown - 1], ports))
    assert contains(answer, json.loads(BLOCKS[shown][1])), json.dumps(answer, indent=2)


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    targets = [t for t in LINK.findall(path.read_text("utf-8")) if "://" not in t]
    assert [t for t in targets if not (path.parent / t).exists()] == []
