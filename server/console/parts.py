"""Small pieces that several views are made of: headings, bars, notes, letters, tables, snippets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from nicegui import ui

from server.console.palette import Mark
from server.console.snippets import as_curl, as_openai
from server.console.visit import Visit

E = TypeVar("E", bound=ui.element)
TO_SEE = """{{ const one = getHtmlElement({}), top = one.getBoundingClientRect().top;
  if (top < 0 || top > innerHeight * 0.7) one.scrollIntoView(); }}"""


def named(element: E, name: str) -> E:
    """Give an element the name that is read out."""
    element.props["aria-label"] = name
    return element


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
    with named(ui.element("div").classes("bar").props("role=img"), says) as made:
        width = f"{max(0.0, min(1.0, share)) * 100:.1f}%"
        ui.element("div").classes("bar-part").style(f"width: {width}; background: {colour}")
    return made


def letter(mark: Mark) -> ui.label:
    """An expert's letter on its colour."""
    return (
        ui.label(mark.letter).classes("letter")
        .style(f"background: {mark.colour}; color: {mark.ink}")
    )  # fmt: skip


def legend(marks: Mapping[str, Mark]) -> ui.element:
    """Which colour and letter is which expert."""
    with named(ui.element("ul").classes("legend"), "Colours of experts") as made:
        for id, mark in marks.items():
            with ui.element("li"):
                letter(mark)
                ui.label(id)
    return made


def snippets(
    visit: Visit, method: str, path: str, body: Mapping[str, Any] | None = None
) -> ui.expansion:
    """The request behind a view, for a shell and for the `openai` client."""
    streams = bool(body and body.get("stream"))
    curl = as_curl(visit.base, method, path, body, keyed=visit.keyed, streams=streams)
    python = as_openai(visit.base, method, path, body, keyed=visit.keyed)
    title = "The same by curl and Python" if python else "The same by curl"
    with ui.expansion(title).classes("snippets wide") as made:
        _code(curl)
        if python:
            _code(python)
    return made


def _code(text: str) -> None:
    """Code to copy."""
    with ui.element("div").classes("code-box"):
        ui.label(text).classes("code")
        ui.button("Copy").props("flat dense no-caps").on(
            "click", js_handler=f"() => navigator.clipboard?.writeText({json.dumps(text)})"
        )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> ui.element:
    """A plain table of text."""
    with ui.element("table").classes("plain") as made:
        with ui.element("thead"), ui.element("tr"):
            for word in head:
                with ui.element("th").props("scope=col"):
                    ui.label(word)
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for word in row:
                        with ui.element("td"):
                            ui.label(word)
    return made


def bring_into_sight(element: ui.element) -> None:
    """Scroll to an element that begins out of sight, or near the end of it."""
    ui.run_javascript(TO_SEE.format(element.id))


async def copy_address() -> None:
    """Put the page's address, which says what is asked, on the clipboard."""
    done = await ui.run_javascript(
        "try { await navigator.clipboard.writeText(location.href); return true } "
        "catch { return false }",
        timeout=10,
    )
    ui.notify("Copied." if done else "Copy the address of this page: it says what is asked.")
