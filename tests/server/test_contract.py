"""The HTTP surface against its own document: schemathesis invents requests to a running server.

No answer is a 5xx, or has a status, a type or a body that the document does not name; whatever
needs a key is closed without one, and what breaks the document is refused. Valid requests may be
refused too: for what is not in the library, and by rules between fields, which it cannot say.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from server.access.keyfile import write_keys
from server.access.keys import PERMISSIONS, make_key
from tests.server.cli.test_serve import serving

EVERY = "examples,coverage,fuzzing,stateful"
UNSAID = "positive_data_acceptance"


def run_against(address: str, token: str, phases: str, cases: int, folder: Path) -> str:
    """Run schemathesis; its report."""
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"{address}/openapi.json",
         "--header", f"Authorization: Bearer {token}", "--exclude-checks", UNSAID,
         "--phases", phases, "--max-examples", str(cases),
         "--generation-deterministic", "--no-color"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@pytest.mark.parametrize(
    ("backbone", "phases", "cases"),
    [
        ("tiny-random", "fuzzing,stateful", 8),
        pytest.param("tiny-random", EVERY, 100, marks=pytest.mark.slow),
        pytest.param("tiny-causal", EVERY, 100, marks=pytest.mark.slow),
    ],
)
def test_a_server_keeps_to_its_document(library, adapters, tmp_path, backbone, phases, cases):
    key, token = make_key("root", PERMISSIONS)
    write_keys(tmp_path / "keys.json", [key])
    if backbone == "tiny-causal":
        library = tmp_path / "none"
        library.mkdir()
    options = [
        "--backbone", backbone, "--keys", "keys.json", "--routing-log", "log.jsonl",
        "--adapter-root", str(adapters), "--body-limit", str(64 << 20),  # 413 is checked elsewhere
    ]  # fmt: skip
    with serving(library, tmp_path, options) as (process, address):
        report = run_against(address, token, phases, cases, tmp_path)
        assert process.poll() is None
    tested = re.search(r"Tested: (\d+)", report)
    assert tested
    assert int(tested[1]) == 27, report
