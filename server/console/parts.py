"""Small pieces that several views are made of: bars, notes, snippets, and how an error is shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

from nicegui import ui

from server.console.api import Refused
from server.console.palette import Mark
from server.console.snippets import as_curl, as_openai
from server.console.visit import Visit

P = ParamSpec("P")
KEY_CODES = ("invalid_api_key", "not_allowed")


def told(work: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    """Show what the server refuses as its own sentence, and go on."""

    @wraps(work)
    async def careful(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            await work(*args, **kwargs)
        except Refused as refused:
            say(refused)

    return careful


def say(refused: Refused) -> None:
    """A refusal, until somebody closes it."""
    ui.notify(str(refused), type="negative", close_button="Close", timeout=0, multi_line=True,
              position="top")  # fmt: skip


def heading(text: str, level: int = 2) -> ui.element:
    """A heading that screen readers can walk by."""
    with ui.element(f"h{level}") as made:
        ui.label(text)
    return made


def note(text: str, sort: str = "plain") -> ui.label:
    """A sentence beside what it is about."""
    return ui.label(text).classes(f"note note-{sort}")


def bar(share: float, colour: str, says: str) -> ui.element:
    """A horizontal bar of a share of 1; `says` is what a screen reader hears."""
    with ui.element("div").classes("bar").props(f'role="img" aria-label="{quoted(says)}"') as made:
        width = f"{max(0.0, min(1.0, share)) * 100:.1f}%"
        ui.element("div").classes("bar-part").style(f"width: {width}; background: {colour}")
    return made


def letter(mark: Mark) -> ui.label:
    """An expert's letter on its colour."""
    return (
        ui.label(mark.letter).classes("letter")
        .style(f"background: {mark.colour}; color: {mark.ink}")
    )  # fmt: skip


def quoted(text: str) -> str:
    """Text inside an attribute of props."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def snippets(
    visit: Visit, method: str, path: str, body: Mapping[str, Any] | None = None
) -> ui.expansion:
    """The request behind a view, for a shell and for the `openai` client."""
    streams = bool(body and body.get("stream"))
    curl = as_curl(visit.base, method, path, body, keyed=visit.keyed, streams=streams)
    python = as_openai(visit.base, path, body or {}, keyed=visit.keyed)
    with ui.expansion("The same by curl and Python").classes("snippets") as made:
        ui.code(curl, language="bash").classes("code")
        if python:
            ui.code(python, language="python").classes("code")
    return made


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> ui.element:
    """A plain table of text."""
    with ui.element("table").classes("plain") as made:
        with ui.element("thead"), ui.element("tr"):
            for word in head:
                with ui.element("th").props('scope="col"'):
                    ui.label(word)
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for word in row:
                        with ui.element("td"):
                            ui.label(word)
    return made
