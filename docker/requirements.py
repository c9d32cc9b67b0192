"""Print what a Sailplane with the given extras depends on, a requirement a line.

    python docker/requirements.py demo,fast

Runs on bare Python, before anything is installed. Knows nothing of versions in force: those are
in `constraints.txt`.
"""

import sys
import tomllib
from pathlib import Path


def requirements(project: dict, extras: list[str]) -> list[str]:
    """Dependencies of the project and of its extras.

    Raises:
        SystemExit: there is no such extra.
    """
    known = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in known]:
        sys.exit(f"EXTRAS: no {', '.join(unknown)} in pyproject.toml, which has {', '.join(known)}")
    return [*project["dependencies"], *(line for extra in extras for line in known[extra])]


if __name__ == "__main__":
    declared = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
    extras = [extra for extra in sys.argv[1].split(",") if extra]
    sys.stdout.writelines(f"{line}\n" for line in requirements(declared, extras))
