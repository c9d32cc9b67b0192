"""The view of the library: a table of experts, one in detail, a map, and changes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from nicegui import ui

from server.console.api import Refused
from server.console.atlas import Atlas
from server.console.detail import show_expert
from server.console.listing import row_of, words_of
from server.console.parts import bring_into_sight, heading, named, note, snippets
from server.console.view import View

COLUMNS = (
    ("id", "Expert", "left"), ("title", "Title", "left"), ("kind", "Kind", "left"),
    ("version", "Version", "right"), ("state", "State", "left"), ("bytes", "Size, MB", "right"),
    ("tier", "Where", "left"), ("times", "Used", "right"), ("last", "Last used", "right"),
    ("scores", "Scores", "left"), ("licence", "Licence", "left"),
)  # fmt: skip
MOST = 500
"""Rows that a browser is given at a time: a search brings the others."""
NAME_CELL = """<q-td :props="props"><q-btn flat dense no-caps color="primary" :label="props.value"
  @click="$parent.$emit('choose', props.value)" /></q-td>"""
AGO = """t => { const s = Date.now() / 1000 - t; return !t ? "" : s < 60 ? "now"
  : s < 3600 ? `${s / 60 | 0} min ago` : s < 86400 ? `${s / 3600 | 0} h ago`
  : `${s / 86400 | 0} d ago`; }"""
"""A time as it is read: in the browser, so that the table is sorted by the time itself."""
GOVERNED = "Loading and removing need the permission admin, which this key has not."


class Experts(View):
    """The library as this visitor may see it."""

    _chosen = ""

    async def build(self, link: str) -> None:
        """See `View.build`; a link names one expert."""
        listed = await self.lasting.wait(self.visit.look_at_library())
        with named(ui.element("section").classes("stack"), "Experts"):
            heading("Experts")
            self._search()
            self._table(listed["data"])
            self._bad(listed["bad"])
            self._change()
            snippets(self.visit, "GET", "/v1/experts")
        with ui.element("div").classes("columns"):
            self.one = named(ui.element("section").classes("left at-one"), "One expert")
            with named(ui.element("section").classes("right"), "Map"):
                self.atlas = Atlas(self, self._choose)
                await self.atlas.build()
        with self.one:
            note("Choose an expert to see all that is known of it.")
        if link in self.visit.experts:
            await self._choose(link)

    @property
    def link(self) -> str:
        """See `View.link`."""
        return self._chosen

    def _search(self) -> None:
        self.search = ui.input("Search names, titles, tags and licences").props(
            "outlined dense clearable debounce=200"
        ).classes("wide")  # fmt: skip
        self.search.on_value_change(self._filter)
        self.count = note("")

    def _table(self, experts: Sequence[Mapping[str, Any]]) -> None:
        columns = [{"name": n, "label": says, "field": n, "align": align, "sortable": True}
                   for n, says, align in COLUMNS]  # fmt: skip
        next(c for c in columns if c["name"] == "last")[":format"] = AGO
        self.table = ui.table(
            rows=[], columns=columns, row_key="id", pagination={"rowsPerPage": 20}
        ).props("dense flat wrap-cells").classes("wide")  # fmt: skip
        self.table.add_slot("body-cell-id", NAME_CELL)
        choose = self.careful(lambda event: self._choose(event.args))
        self.table.on("choose", lambda event: choose(event))
        self._fill(experts)

    def _fill(self, experts: Sequence[Mapping[str, Any]]) -> None:
        self._rows = [(words_of(expert), row_of(expert)) for expert in experts]
        self._filter()

    def _filter(self) -> None:
        """Show the rows that have all that is searched for; of very many the first."""
        wanted = (self.search.value or "").lower().split()
        found = [row for words, row in self._rows if all(word in words for word in wanted)]
        self.table.rows = found[:MOST]
        for column in self.table.columns:  # a part of them in order would pass for the whole
            column["sortable"] = len(found) <= MOST
        self.table.update()
        more = f", of which {MOST} are shown" if len(found) > MOST else ""
        self.count.set_text(f"{len(found)} of {len(self._rows)} experts{more}")

    def _bad(self, bad: Sequence[Mapping[str, str]]) -> None:
        if bad:
            heading("Folders that cannot be served", 3)
        for one in bad:
            note(f"{one['name']}: {one['reason']}", "warning")

    def _change(self) -> None:
        """Load an adapter from a folder that the operator allowed."""
        if not self.visit.governs:
            note(GOVERNED)
            return
        with ui.expansion("Load an expert").classes("wide"):
            note("A folder with a PEFT adapter or an expert, below --adapter-root. One sentence of "
                 "instruction lets the router choose it.")  # fmt: skip
            self.source = ui.input("Folder on the server").props("outlined dense").classes("wide")
            self.id = ui.input("Name").props("outlined dense").classes("wide")
            self.says = ui.input("Instruction").props("outlined dense").classes("wide")
            ui.button("Load", on_click=self.careful(self._load))
            self.why = note("", "warning").classes("at-why").props("role=alert")
            self.why.set_visibility(False)

    async def _load(self, *_: object) -> None:
        said = [self.says.value] if self.says.value else []
        body = {"source": self.source.value or "", "id": self.id.value or "", "instructions": said}
        self.why.set_visibility(False)
        try:
            added = await self.lasting.wait(self.visit.api.post("/v1/experts", body))
        except Refused as refused:
            self.why.set_text(str(refused))
            self.why.set_visibility(True)
            return
        ui.notify(f"{added['id']} is loaded.", type="positive")
        await self._again(added["id"])

    async def _ask_to_remove(self, id: str) -> None:
        with ui.dialog() as dialog, ui.card():
            ui.label(f"Remove {id} from the library? Its files are deleted.")
            with ui.row():
                ui.button("Remove", color="negative", on_click=lambda: dialog.submit(True))
                ui.button("Keep", on_click=lambda: dialog.submit(False)).props("flat")
        if await dialog:
            await self._remove(id)

    async def _remove(self, id: str) -> None:
        try:
            await self.lasting.wait(self.visit.api.delete(f"/v1/experts/{id}"))
            ui.notify(f"{id} is removed.")
        except Refused as refused:
            if refused.status != HTTPStatus.NOT_FOUND:
                raise
            self.tell(refused)  # somebody else was faster
        await self._again(None)

    async def _again(self, id: str | None) -> None:
        """The table and the map as they are now."""
        listed = await self.lasting.wait(self.visit.look_at_library())
        self._fill(listed["data"])
        await self.atlas.look()
        if id is not None:
            await self._choose(id)
            return
        self._chosen = ""
        self.keep("")
        self.one.clear()

    async def _choose(self, id: str) -> None:
        """Show one expert."""
        expert = await self.turns.next().wait(self.visit.api.get(f"/v1/experts/{id}"))
        self._chosen = id
        self.keep(id)
        self.one.clear()
        with self.one:
            show_expert(self.visit, expert)
            if self.visit.governs:
                remove = self.careful(lambda *_: self._ask_to_remove(id))
                ui.button("Remove", on_click=remove).props("flat color=negative")
        bring_into_sight(self.one)  # below a long table
