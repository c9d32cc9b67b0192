"""Every command says how to use it, with an example, and at once."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
import typer

from server.cli import app
from server.settings import Settings


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


PATHS = list(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", PATHS, ids=lambda p: " ".join(p) or "sailplane")
def test_every_command_shows_an_example(run, path):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert f"Example: sailplane {' '.join(path)}".strip() in result.output


def test_every_setting_is_an_option_of_serve(run):
    help_text = run("serve", "--help").output
    flags = {f"--{name.replace('_', '-')}".removesuffix("s") for name in Settings.model_fields}
    assert {flag for flag in flags if flag not in help_text} == set()


def test_help_imports_nothing_heavy():
    code = "import sys, server.cli; print(*{'torch', 'transformers', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
