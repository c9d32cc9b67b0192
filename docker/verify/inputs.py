"""What pip on this machine is set up with, as things that a build can be given from outside.

    python3 docker/verify/inputs.py FILE

Writes pip's settings in force to FILE, to be mounted as a secret, and prints a `--volume` for each
file or folder that they name: in the build these lie under /run/build, so the settings are
rewritten to say so. Knows no index and no path by name: it asks pip.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

PLACE = "/run/build"
CERTIFICATES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
FILE_URL = "file://"


def settings() -> dict[str, str]:
    """Pip's options in force, by name; what the environment says comes last and wins."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, str] = {}
    for line in sorted(told.splitlines(), key=lambda line: line.startswith(":env:")):
        key, value = line.split("=", 1)
        found[key.rsplit(".", 1)[-1]] = ast.literal_eval(value)
    found.pop("config-file", None)  # where settings are read from is none itself
    named = [path for name in CERTIFICATES if (path := os.environ.get(name))]
    if named and "cert" not in found:
        found["cert"] = named[0]
    return found


class Volumes:
    """Files and folders of this machine, each at a place of its own in the build."""

    def __init__(self) -> None:
        self.places: dict[Path, str] = {}

    def rewrite(self, word: str) -> str:
        """A word of a setting as the build must read it."""
        path = Path(word.removeprefix(FILE_URL))
        if not path.is_absolute() or not path.exists():
            return word
        if not word.startswith(FILE_URL):
            return self._at(path)
        # The pages of an index point at files beside it.
        return f"{FILE_URL}{self._at(path.parent)}/{path.name}"

    def _at(self, path: Path) -> str:
        return self.places.setdefault(path, f"{PLACE}/{len(self.places)}")


def main() -> None:
    """Write the settings, print the volumes."""
    volumes = Volumes()
    lines = [
        f"{key} = {' '.join(map(volumes.rewrite, value.split()))}\n"
        for key, value in settings().items()
    ]
    Path(sys.argv[1]).write_text("[global]\n" + "".join(lines), "utf-8")
    for path, place in volumes.places.items():
        print(f"--volume={path.resolve()}:{place}:ro")


if __name__ == "__main__":
    main()
