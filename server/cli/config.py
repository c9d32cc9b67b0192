"""`sailplane config`: the settings in force, as a TOML file that says where each came from."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import SecretStr

from server.cli.common import out
from server.cli.options import with_settings
from server.settings import Origins


@with_settings()
def config(origins: Origins) -> None:
    """Print the effective settings and where each comes from; secrets are masked."""
    lines = {key: _line(key, value) for key, value in origins.settings}
    width = max(map(len, lines.values()))
    for key, line in lines.items():
        text = f"{line:{width}}  # {origins.of[key]}"
        out.print(text, markup=False, highlight=False, soft_wrap=True)


def _line(key: str, value: object) -> str:
    """One setting as TOML; what TOML cannot say, or nobody should see, as a comment."""
    if value is None:
        return f"# {key} is not set"
    if isinstance(value, SecretStr):
        return f"# {key} is {'set and not shown' if value.get_secret_value() else 'not set'}"
    if isinstance(value, tuple):
        return f"{key} = {json.dumps([str(v) for v in value])}"
    return f"{key} = {json.dumps(str(value) if isinstance(value, Path) else value)}"
