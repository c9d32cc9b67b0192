"""The view of the library: a table of experts, one in detail, a map, and changes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from nicegui import ui

from server.console.api import Refused
from server.console.atlas import Atlas
from server.console.detail import show_expert
from server.console.parts import heading, note, snippets, told
from server.console.visit import Visit

COLUMNS = (
    ("id", "Expert", "left"), ("title", "Title", "left"), ("kind", "Kind", "left"),
    ("version", "Version", "right"), ("state", "State", "left"), ("bytes", "Size, MB", "right"),
    ("tier", "Where", "left"), ("times", "Used", "right"), ("last", "Last used", "left"),
    ("licence", "Licence", "left"),
)  # fmt: skip
MEGA = 2**20


class Experts:
    """The library as this visitor may see it.

    Args:
        keep: told the link of what is shown. ask: has the other view ask a question.
    """

    def __init__(self, visit: Visit, keep: Callable[[str], object]) -> None:
        self.visit, self._keep = visit, keep

    async def build(self, link: str) -> None:
        """The view, and one expert in detail where the link names it."""
        listed = await self.visit.look_at_library()
        with ui.element("section").classes("stack").props('aria-label="Experts"'):
            heading("Experts")
            self._search()
            self._table(listed)
            self._bad(listed["bad"])
            self._change()
            snippets(self.visit, "GET", "/v1/experts")
        with ui.element("div").classes("columns"):
            self.one = ui.element("section").classes("left").props('aria-label="One expert"')
            self.one.classes("at-one")
            with ui.element("section").classes("right").props('aria-label="Map"'):
                self.atlas = Atlas(self.visit, self.choose)
                await self.atlas.build()
        with self.one:
            note("Choose an expert to see all that is known of it.")
        if link in self.visit.experts:
            await self.choose(link)

    def _search(self) -> None:
        self.search = ui.input("Search", on_change=self._filter).props(
            "outlined dense clearable"
        ).classes("wide").classes("at-search")  # fmt: skip

    def _filter(self) -> None:
        self.table.filter = self.search.value or ""

    def _table(self, listed: Mapping[str, Any]) -> None:
        columns = [{"name": n, "label": says, "field": n, "align": align, "sortable": True}
                   for n, says, align in COLUMNS]  # fmt: skip
        self.table = ui.table(
            rows=[row_of(e) for e in listed["data"]], columns=columns, row_key="id",
            pagination={"rowsPerPage": 20},
        ).props("dense flat wrap-cells").classes("wide").classes("at-experts-table")  # fmt: skip
        self.table.on("rowClick", lambda e: self.choose(e.args[1]["id"]))
        with self.table.add_slot("no-data"):
            note("No expert of that name.")

    def _bad(self, bad: list[Mapping[str, str]]) -> None:
        if bad:
            heading("Not served", 3)
        for one in bad:
            note(f"{one['name']}: {one['reason']}", "warning")

    def _change(self) -> None:
        """Load an adapter from a folder that the operator allowed."""
        with ui.expansion("Load an expert").classes("wide").classes("at-load"):
            note("A folder with a PEFT adapter or an expert, below --adapter-root. One sentence of "
                 "instruction lets the router choose it.")  # fmt: skip
            self.source = ui.input("Folder on the server").props("outlined dense").classes("wide")
            self.source.classes("at-source")
            self.id = ui.input("Name").props("outlined dense").classes("wide").classes("at-new-id")
            self.says = ui.input("Instruction").props("outlined dense").classes("wide")
            self.says.classes("at-new-instruction")
            ui.button("Load", on_click=self._load).classes("at-load-button")
            self.why = note("", "warning").classes("at-why")
            self.why.set_visibility(False)

    async def _load(self) -> None:
        said = [self.says.value] if self.says.value else []
        body = {"source": self.source.value or "", "id": self.id.value or "", "instructions": said}
        try:
            added = await self.visit.api.post("/v1/experts", body)
        except Refused as refused:
            self.why.set_text(str(refused))
            self.why.set_visibility(True)
            return
        self.why.set_visibility(False)
        ui.notify(f"{added['id']} is loaded.", type="positive")
        await self._again(added["id"])

    async def _remove(self, id: str) -> None:
        with ui.dialog() as dialog, ui.card():
            ui.label(f"Remove {id} from the library? Its files are deleted.")
            with ui.row():
                ui.button("Remove", on_click=lambda: dialog.submit(True)).classes("at-really")
                ui.button("Keep", on_click=lambda: dialog.submit(False)).props("flat")
        if await dialog:
            await self._remove_now(id)

    @told
    async def _remove_now(self, id: str) -> None:
        await self.visit.api.delete(f"/v1/experts/{quote(id, safe='')}")
        ui.notify(f"{id} is removed.")
        await self._again(None)

    async def _again(self, id: str | None) -> None:
        """The table and the map as they are now."""
        listed = await self.visit.look_at_library()
        self.table.rows = [row_of(e) for e in listed["data"]]
        self.table.update()
        await self.atlas.look()
        if id is None:
            self.one.clear()
        else:
            await self.choose(id)

    @told
    async def choose(self, id: str) -> None:
        """Show one expert."""
        expert = await self.visit.api.get(f"/v1/experts/{quote(id, safe='')}")
        self._keep(id)
        self.one.clear()
        with self.one:
            show_expert(self.visit, expert)
            ui.button("Remove", on_click=lambda: self._remove(id)).props(
                "flat color=negative"
            ).classes("at-remove")


def row_of(expert: Mapping[str, Any]) -> dict[str, Any]:
    """An expert as a row of the table."""
    use = expert["use"] or {}
    provenance = expert["provenance"]
    size = expert["bytes"]
    return {
        "id": expert["id"], "title": expert["title"], "kind": expert["kind"],
        "version": expert["version"], "state": expert["state"],
        "bytes": None if size is None else round(size / MEGA, 2),
        "tier": use.get("tier"), "times": use.get("times"), "last": ago(use.get("last")),
        "licence": licence_of(provenance),
    }  # fmt: skip


def licence_of(provenance: Mapping[str, Any]) -> str:
    """The licence of the data behind an expert, where it is told."""
    found = provenance.get("licence") or provenance.get("license") or ""
    return str(found)


def ago(moment: float | None, now: float | None = None) -> str:
    """How long ago something was, in a word."""
    if moment is None:
        return ""
    seconds = max(0.0, (time.time() if now is None else now) - moment)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "now" if seconds < 5 else f"{int(seconds)} s ago"
