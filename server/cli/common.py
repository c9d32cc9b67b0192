"""What the commands share: where they write, how they fail, how they show that they work.

Results go to stdout, everything else to stderr, so that output can be piped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, track

from experts.errors import ExpertError
from server.errors import ServerError
from server.settings import SettingsError

T = TypeVar("T")

FAILED, BAD_USAGE = 1, 2
PATIENCE = 2.0
"""Seconds until a spinner says how far it is."""

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
def bar(what: str, total: int) -> Generator[Callable[[], None]]:
    """Show a bar on stderr; what it yields is called after each of `total` steps."""
    with Progress(console=notes) as bars:
        task = bars.add_task(what, total=total)
        yield lambda: bars.advance(task)


KERNELS = 256
"""Kernels that oneDNN keeps, of 1,024 by its own choice. A batch of another number of tokens needs
five anew, made in 1 ms, and 0.25 MB each: batches of all sizes would fill 250 MB in an hour."""


def tame_libraries(threads: int) -> None:
    """Have OpenMP's idle threads sleep, which would starve the event loop, and oneDNN keep less.

    Both read these when torch is imported, so it is too late inside the engine.

    Args:
        threads: of a forward pass; 0 leaves the number to OpenMP.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


@contextmanager
def busy(what: str) -> Generator[Callable[[int, int], None]]:
    """Show a spinner on stderr while something goes on.

    Yields:
        Told how many parts are done and of how many, it shows that once it has taken a while.
    """
    began = time.monotonic()

    def told(done: int, total: int) -> None:
        if time.monotonic() - began > PATIENCE:
            status.update(f"{what}: {done:,} of {total:,}")

    with notes.status(what) as status:
        yield told
