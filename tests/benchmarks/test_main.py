"""Benchmarks run from end to end, as a person starts them; how fast is not asked here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*given):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *given],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def kept():
    return {path: path.read_bytes() for path in (ROOT / "benchmarks" / "results").glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("forward", "merge of 2, cold: pass / bare pass"),
        ("choose", "shapes measured"),
    ],
)
def test_a_quick_run_shows_its_figures_and_keeps_none(name, figure):
    before = kept()
    done = run("--quick", name)
    assert done.returncode == 0, done.stderr
    assert figure in done.stdout
    assert kept() == before


def test_a_name_that_is_none_is_answered_with_those_there_are():
    done = run("frwd")
    assert done.returncode == 2
    assert "no benchmark frwd" in done.stderr
    assert "forward" in done.stderr
