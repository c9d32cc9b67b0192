"""All that is known of one expert."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nicegui import ui

from server.console.examples import example
from server.console.listing import facts_of
from server.console.parts import heading, note, snippets, table
from server.console.visit import Visit

LABELS = 40


def show_expert(visit: Visit, expert: Mapping[str, Any]) -> None:
    """Its manifest, part by part."""
    heading(expert["title"] or expert["id"])
    table(("what", "is"), facts_of(expert))
    _list("Instructions", expert["instructions"])
    _list("Labels", expert["labels"][:LABELS], len(expert["labels"]))
    if expert["scores"]:
        heading("Scores", 3)
        table(("figure", "value"), [(k, f"{v:.3f}") for k, v in expert["scores"].items()])
    _samples(visit, expert)
    if expert["provenance"]:
        with ui.expansion("Provenance").classes("wide"):
            told = json.dumps(expert["provenance"], indent=2, ensure_ascii=False)
            ui.label(told).classes("code")
    snippets(visit, "GET", f"/v1/experts/{expert['id']}")


def _list(title: str, items: Sequence[str], whole: int | None = None) -> None:
    if not items:
        return
    heading(title, 3)
    with ui.element("ul").classes("list"):
        for item in items:
            with ui.element("li"):
                ui.label(item)
    if whole and whole > len(items):
        note(f"and {whole - len(items)} more")


def _samples(visit: Visit, expert: Mapping[str, Any]) -> None:
    """Inputs to try it with: a link to the view that asks."""
    if not expert["samples"]:
        return
    heading("To try it with", 3)
    for i, sample in enumerate(expert["samples"]):
        link = example(expert, visit.sort, i).wish.to_link()
        with ui.element("p").classes("sample"):
            ui.link(sample["input"], f"#ask&{link}")
            note(f"right: {sample['answer']}")
