"""`sailplane keys`: make, list and remove the keys of a server.

A running server sees the change within a second.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, cast

import typer
from pydantic import ValidationError
from rich.table import Table

from server.cli.common import BAD_USAGE, fail, notes, out
from server.cli.options import with_settings
from server.settings import Origins, SettingsError

app = typer.Typer(help="Make, list and remove API keys.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Whose key it is: for people, logs and metrics.")]
DEFAULT = ("infer", "route:trace")


@app.command(epilog="Example: sailplane keys add team-a --tag team-a --tag public --keys keys.json")
@with_settings("keys")
def add(
    origins: Origins,
    name: Name,
    permission: Annotated[
        list[str] | None,
        typer.Option(help="infer, route:trace, metrics or admin; may be repeated."
                     f" Default: {' and '.join(DEFAULT)}."),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="It may use the experts with this tag alone; may be repeated."
                     " Default: all experts."),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1)] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, help="Requests answered at one time.")
    ] = None,
    expires: Annotated[
        datetime | None, typer.Option(help="When it ends, in local time.", formats=["%Y-%m-%d"])
    ] = None,
) -> None:  # fmt: skip
    """Make a key, and print it: it is told this once, and only its digest is kept."""
    from server.access.keyfile import change_keys
    from server.access.keys import Limits, Permission, make_key

    path = _path(origins)
    try:
        key, token = make_key(
            name, cast("list[Permission]", permission or DEFAULT), tag,
            Limits(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute,
                   concurrent=concurrent),
            expires.astimezone() if expires else None,
        )  # fmt: skip
        change_keys(path, lambda there: [*there, key])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise fail(f"{where}: {first['msg']}" if where else first["msg"], BAD_USAGE) from None
    notes.print(f"Key of [bold]{name}[/]. Keep it now: it cannot be shown again.")
    out.print(token, highlight=False, soft_wrap=True)


@app.command("list", epilog="Example: sailplane keys list --keys keys.json")
@with_settings("keys")
def list_keys(origins: Origins) -> None:
    """List the keys: all but the keys themselves."""
    from server.access.keyfile import read_keys

    table = Table("name", "permissions", "tags", "limits", "expires")
    for key in read_keys(_path(origins)):
        limits = (f"{value} {what}" for what, value in key.limits if value is not None)
        table.add_row(
            key.name,
            ", ".join(sorted(key.permissions)),
            "all experts" if key.tags is None else ", ".join(sorted(key.tags)),
            ", ".join(limit.replace("_", " ") for limit in limits),
            f"{key.expires:%Y-%m-%d}{' (over)' if key.expired else ''}" if key.expires else "never",
        )  # fmt: skip
    out.print(table)


@app.command(epilog="Example: sailplane keys remove team-a --keys keys.json")
@with_settings("keys")
def remove(origins: Origins, name: Name) -> None:
    """Remove a key: requests with it are refused from then on."""
    from server.access.keyfile import change_keys
    from server.access.keys import Key

    path = _path(origins)

    def without(there: tuple[Key, ...]) -> list[Key]:
        left = [key for key in there if key.name != name]
        if len(left) == len(there):
            raise fail(f"No key of {name!r} in {path}; `sailplane keys list` shows what is there.")
        return left

    change_keys(path, without)
    notes.print(f"Removed the key of [bold]{name}[/].")


def _path(origins: Origins) -> Path:
    path = origins.settings.keys
    if path is None:
        raise SettingsError("keys: expected the file of keys, --keys FILE or SAILPLANE_KEYS")
    return path
