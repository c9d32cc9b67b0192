"""The view of the library: a table of experts, one in detail, a map, and changes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from nicegui import ui

from server.console.api import Refused
from server.console.atlas import Atlas
from server.console.detail import show_expert
from server.console.listing import row_of, words_of
from server.console.parts import heading, note, snippets, told
from server.console.visit import Visit

COLUMNS = (
    ("id", "Expert", "left"), ("title", "Title", "left"), ("kind", "Kind", "left"),
    ("version", "Version", "right"), ("state", "State", "left"), ("bytes", "Size, MB", "right"),
    ("tier", "Where", "left"), ("times", "Used", "right"), ("last", "Last used", "left"),
    ("licence", "Licence", "left"),
)  # fmt: skip
MOST = 500
"""Rows that a browser is given at a time: a search brings the others."""


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
        self.search = ui.input("Search names, titles, tags and licences").props(
            "outlined dense clearable debounce=200"
        ).classes("wide")  # fmt: skip
        self.search.on_value_change(self._filter)
        self.count = note("")

    def _table(self, listed: Mapping[str, Any]) -> None:
        columns = [{"name": n, "label": says, "field": n, "align": align, "sortable": True}
                   for n, says, align in COLUMNS]  # fmt: skip
        self.table = ui.table(
            rows=[], columns=columns, row_key="id", pagination={"rowsPerPage": 20}
        ).props("dense flat wrap-cells").classes("wide")  # fmt: skip
        self.table.on("rowClick", lambda e: self.choose(e.args[1]["id"]))
        self._fill(listed["data"])

    def _fill(self, experts: Sequence[Mapping[str, Any]]) -> None:
        self._rows = [(words_of(expert), row_of(expert)) for expert in experts]
        self._filter()

    def _filter(self) -> None:
        """Show the rows that have all that is searched for; of very many the first."""
        wanted = (self.search.value or "").lower().split()
        found = [row for words, row in self._rows if all(word in words for word in wanted)]
        self.table.rows = found[:MOST]
        self.table.update()
        more = f", of which {MOST} are shown" if len(found) > MOST else ""
        self.count.set_text(f"{len(found)} of {len(self._rows)} experts{more}")

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
        self._fill(listed["data"])
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
