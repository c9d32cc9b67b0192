"""Where the values of settings come from, and which is in force.

First found wins: command line, `SAILPLANE_<NAME>` in the environment, one TOML file, default.
Nothing is read when this module is imported, only in `read_settings`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from server.settings.fields import OTLP_VARIABLE, PREFIX, Settings, SettingsError

CONFIG_VARIABLE = f"{PREFIX}CONFIG"
CONFIG_FILE = Path("sailplane.toml")
COMMAND_LINE, DEFAULT = "command line", "default"


@dataclass(frozen=True)
class Origins:
    """Settings, and for each key where its value came from."""

    settings: Settings
    of: Mapping[str, str]


def read_settings(
    options: Mapping[str, object] | None = None, config: Path | None = None
) -> Origins:
    """The effective settings of this process.

    Args:
        options: given on the command line, by field name.
        config: the TOML file; None takes SAILPLANE_CONFIG, or `sailplane.toml` if it is here.

    Raises:
        SettingsError: a key that does not exist, or a value that does not fit.
    """
    values: dict[str, object] = {}
    origins = dict.fromkeys(Settings.model_fields, DEFAULT)
    for source, layer in _layers(options or {}, config):
        _require_known(layer, source)
        values |= layer
        origins |= dict.fromkeys(layer, source)
    try:
        return Origins(Settings(**values), origins)  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(error, origins))) from None


def _layers(
    options: Mapping[str, object], config: Path | None
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Each source and what it says, weakest first."""
    named = config or os.environ.get(CONFIG_VARIABLE)
    if named or CONFIG_FILE.is_file():
        path = Path(named or CONFIG_FILE)
        yield str(path), _read_toml(path)
    yield "environment", _read_environment()
    yield COMMAND_LINE, options


def _read_toml(path: Path) -> Mapping[str, object]:
    if not path.is_file():
        raise SettingsError(f"config = {str(path)!r}: expected a TOML file that exists")
    try:
        return TomlConfigSettingsSource(Settings, toml_file=path)()
    except ValueError as error:
        raise SettingsError(
            f"config = {str(path)!r}: expected a valid TOML file ({error})"
        ) from None


def _read_environment() -> Mapping[str, object]:
    names = {key[len(PREFIX) :].lower() for key in os.environ if key.upper().startswith(PREFIX)}
    _require_known(dict.fromkeys(names - {"config"}), "environment")
    usual = os.environ.get(OTLP_VARIABLE)
    return {**({"otlp_endpoint": usual} if usual else {}), **EnvSettingsSource(Settings)()}


def _require_known(keys: Mapping[str, object], source: str) -> None:
    for key in keys:
        if key not in Settings.model_fields:
            close = get_close_matches(key, Settings.model_fields, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingsError(f"{key} (from {source}): no such setting{hint}")


def _explain(error: ValidationError, origins: Mapping[str, str]) -> Iterator[str]:
    for item in error.errors():
        key = str(item["loc"][0])
        secret = Settings.model_fields[key].annotation is SecretStr
        value = "(not shown)" if secret else repr(item["input"])
        expectation = item["msg"].removeprefix("Value error, ")
        expectation = expectation.replace("Input should be", "expected")
        yield f"{key} = {value} (from {origins[key]}): {expectation}"
