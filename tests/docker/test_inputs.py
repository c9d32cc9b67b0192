"""What a build is given of a machine's pip: settings, and mounts for what they name."""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docker" / "verify" / "inputs.py"


def given(tmp_path: Path, **env: str) -> tuple[dict[str, str], dict[str, str]]:
    """Pip's settings inside the build, and what is mounted where, with this environment alone."""
    written = tmp_path / "written"
    plain = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, **env}
    told = subprocess.run(
        [sys.executable, SCRIPT, written], env=plain, capture_output=True, text=True, check=True
    )
    parsed = configparser.RawConfigParser()
    parsed.read(written, "utf-8")
    mounts = [re.fullmatch(r"--volume=(.*):(.*):ro", line) for line in told.stdout.splitlines()]
    return dict(parsed["global"]), {mount[1]: mount[2] for mount in mounts}


def test_files_and_folders_are_mounted_and_named_where_they_are_in_the_build(tmp_path):
    wheels, index = tmp_path / "wheels", tmp_path / "index"
    wheels.mkdir()
    (index / "simple").mkdir(parents=True)
    settings, mounts = given(
        tmp_path,
        PIP_FIND_LINKS=str(wheels),
        PIP_EXTRA_INDEX_URL=f"file://{index}/simple https://example.org/simple",
        PIP_TIMEOUT="7",
    )
    assert mounts.keys() == {str(index), str(wheels)}
    assert settings == {
        "find-links": mounts[str(wheels)],
        "extra-index-url": f"file://{mounts[str(index)]}/simple https://example.org/simple",
        "timeout": "7",
    }


def test_a_certificate_of_the_machine_is_one_of_pips(tmp_path):
    certificate = tmp_path / "ca.pem"
    certificate.touch()
    settings, mounts = given(tmp_path, SSL_CERT_FILE=str(certificate))
    assert mounts == {str(certificate): settings["cert"]}


def test_the_certificate_that_pip_is_told_of_comes_first(tmp_path):
    for name in ("ca.pem", "other.pem"):
        (tmp_path / name).touch()
    told, other = str(tmp_path / "ca.pem"), str(tmp_path / "other.pem")
    settings, mounts = given(tmp_path, PIP_CERT=told, REQUESTS_CA_BUNDLE=other)
    assert mounts == {told: settings["cert"]}
