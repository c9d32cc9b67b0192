"""`sailplane experts push` and `pull`: a library to an object store, and from there into a folder.

Neither loads a backbone.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from server.cli.common import busy, notes, out
from server.cli.options import with_settings
from server.settings import Origins

Url = Annotated[
    str, typer.Argument(help="Where, as fsspec names it: s3://bucket/library, gs://..., a folder.")
]


@with_settings("library")
def push(origins: Origins, url: Url) -> None:
    """Have an object store hold the library as it is now, for servers with --library-url.

    Kept versions, aliases and constants go with it. Prints the generation.
    """
    from experts.mirror import push as push_library

    root = origins.settings.library
    with busy(f"Pushing library {root}"):
        done = push_library(root, url)
    told = f"Wrote {done.written} objects and deleted {done.deleted} that nothing needs any more."
    notes.print(escape(told), highlight=False)
    out.print(done.generation, highlight=False)


@with_settings("library")
def pull(origins: Origins, url: Url) -> None:
    """Make --library a copy of what was pushed there; an earlier copy, or an empty folder.

    Prints the generation. A server with --library-url does it by itself, again and again.
    """
    from experts.mirror import Mirror

    root = origins.settings.library
    with busy(f"Pulling library {root}"):
        mirror = Mirror(url, root)
        mirror.pull()
    out.print(mirror.generation, highlight=False)
