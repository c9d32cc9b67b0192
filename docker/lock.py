"""Write `constraints.txt`: the version of every package that the image holds.

    .venv/bin/python docker/lock.py

Asks pip what it would install for the extras that images are built with, and installs nothing.
What torch itself asks for by version (CUDA's libraries) is left to torch, so that one list serves
its builds for CPUs and for CUDA.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

from requirements import requirements

HERE = Path(__file__).parent
EXTRAS = ["demo", "fast", "console", "otel"]
OF_TORCH = ("nvidia-", "cuda-", "triton")


def resolved(lines: list[str]) -> dict[str, str]:
    """Name and public version of all that pip would install."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    told = subprocess.run(
        [*command, "--report", "-", *lines], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    found = [item["metadata"] for item in json.loads(told)["install"]]
    return {item["name"].lower(): item["version"].split("+")[0] for item in found}


def main() -> None:
    """Resolve, and write the list anew."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [extra for extra in EXTRAS if extra in project["optional-dependencies"]]
    found = resolved(requirements(project, extras))
    lines = [f"{n}=={v}\n" for n, v in sorted(found.items()) if not n.startswith(OF_TORCH)]
    head = f"# Made by docker/lock.py for the extras {', '.join(extras)}.\n"
    (HERE / "constraints.txt").write_text(head + "".join(lines), "utf-8")


if __name__ == "__main__":
    main()
