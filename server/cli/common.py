"""What the commands share: where they write, how they fail, how they show that they work.

Results go to stdout, everything else to stderr, so that output can be piped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from experts.errors import ExpertError
from server.errors import ServerError
from server.settings import SettingsError

T = TypeVar("T")

FAILED, BAD_USAGE = 1, 2

out = Console()
notes = Console(stderr=True)


def fail(message: str, code: int = FAILED) -> typer.Exit:
    """Say why on stderr; raise what this returns to end with `code`."""
    notes.print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True, highlight=False)
    return typer.Exit(code)


@contextmanager
def clear_errors() -> Generator[None]:
    """Turn expected failures into a message and an exit code; faults of ours keep their trace."""
    try:
        yield
    except SettingsError as error:
        raise fail(str(error), BAD_USAGE) from error
    except (ExpertError, ServerError) as error:
        details = "".join(f"\n  {k}: {v}" for k, v in error.details.items())
        raise fail(error.message + details) from error
    except OSError as error:
        raise fail(f"{error.filename or 'system'}: {error.strerror or error}") from error


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Go through `items` with a bar on stderr."""
    yield from track(items, what, total=total, console=notes)


@contextmanager
def busy(what: str) -> Generator[Callable[[Iterable[T], str], Iterator[T]]]:
    """Show a spinner on stderr while something without a count goes on.

    Yields:
        `progress`, for a part of it that has a count: the bar takes the spinner's place.
    """
    with notes.status(what) as spinner:

        def counted(items: Iterable[T], what: str) -> Iterator[T]:
            spinner.stop()
            yield from progress(items, what)
            spinner.start()

        yield counted
