"""Settings as command-line options, made from the fields of `Settings`: one list, not two.

A command takes `origins: Origins` and says which settings it needs; the options replace that
parameter. Values stay text here: `read_settings` checks them, whatever source they came from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from server.cli.common import clear_errors
from server.settings import CONFIG_FILE, Settings, read_settings

Command = Callable[..., None]
KEYWORD = inspect.Parameter.KEYWORD_ONLY

EPILOG = "Every option is also a variable SAILPLANE_<NAME> and a key of sailplane.toml."


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Give a command the options of these settings (of all, when none is named).

    The command is called with `origins`, what those options and all other sources say together.
    """
    fields = {n: Settings.model_fields[n] for n in names or Settings.model_fields}

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(**given: Any) -> None:
            config = given.pop("config")
            options = {name: given.pop(name) for name in fields}
            told = {n: v for n, v in options.items() if v is not None and v != []}
            with clear_errors():
                command(origins=read_settings(told, config), **given)

        own = inspect.signature(command, eval_str=True).parameters
        parameters = [p for p in own.values() if p.name != "origins"]
        parameters += [_config_option(), *(_option(n, f) for n, f in fields.items())]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _config_option() -> inspect.Parameter:
    about = typer.Option("--config", help=f"TOML file of settings. Default: ./{CONFIG_FILE}.")
    return inspect.Parameter("config", KEYWORD, default=None, annotation=_optional(Path, about))


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    kind, flag, metavar = str, f"--{name.replace('_', '-')}", _metavar(field)
    if field.annotation is bool:
        kind, flag, metavar = bool, f"{flag}/--no-{flag[2:]}", None
    elif get_origin(field.annotation) is tuple:
        kind, flag = list[str], flag.removesuffix("s")
    text = f"{field.description}{_default(field)}"
    about = typer.Option(flag, help=text, metavar=metavar, rich_help_panel="Settings")
    return inspect.Parameter(name, KEYWORD, default=None, annotation=_optional(kind, about))


def _optional(kind: Any, about: Any) -> Any:
    return Annotated[kind | None, about]


def _metavar(field: FieldInfo) -> str:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    plain = [t for t in get_args(annotation) if t is not type(None)] or [annotation]
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(plain[0], "TEXT")


def _default(field: FieldInfo) -> str:
    value = field.default
    unset = value is None or value == () or isinstance(value, SecretStr)
    return "" if unset else f" Default: {value}."
