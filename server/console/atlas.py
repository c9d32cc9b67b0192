"""The map: every instruction of every expert as a point, and where a sentence lies among them."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nicegui import ui

from server.console.parts import heading, named, note, snippets
from server.console.view import Turns, View

Choose = Callable[[str], Awaitable[None]]
MANY = 2000
"""Points beyond which they are drawn plainly, so that the map stays quick."""
HERE = "your sentence"


class Atlas:
    """The library's instructions on a plane, as a part of a view.

    Args:
        choose: told the expert whose point was clicked.
    """

    def __init__(self, view: View, choose: Choose) -> None:
        self._view, self._choose = view, choose
        self._map: Mapping[str, Any] = {"experts": [], "points": []}
        self._here: list[list[Any]] = []
        self._turns = Turns(view.place)

    async def build(self) -> None:
        """The frame, and the points in it."""
        view = self._view
        heading("Map of instructions")
        self.about = note("")
        place = view.careful(self.place)
        with ui.row().classes("wide"):
            self.sentence = ui.input("A task in a sentence").props("outlined dense").classes("grow")
            self.sentence.on("keydown.enter", place)
            ui.button("Where is it?", on_click=place)
        clicked = view.careful(self._clicked)
        self.chart = ui.echart({}, on_point_click=lambda event: clicked(event))
        self.chart.classes("map at-map")
        named(self.chart, "Map of instructions; what is near is listed below").props("role=img")
        self.near = ui.element("div").classes("at-near")
        snippets(view.visit, "GET", "/v1/map")
        placed = None
        if view.visit.asked and view.visit.traced:  # what was asked in the other view
            self.sentence.value = view.visit.asked
            placed = await self._placed(view.visit.asked)
        await self.look()
        if placed:
            self._tell(placed)

    async def look(self) -> None:
        """Ask for the points again."""
        self._map = await self._view.lasting.wait(self._view.visit.api.get("/v1/map"))
        part = sum(self._map["told"])
        self.about.set_text(
            f"{len(self._map['points'])} instructions of {len(self._map['experts'])} experts. This "
            f"flat map shows {part:.0%} of how they differ, so points that lie together may mean "
            "different things; the list of what is nearest goes by their whole meaning."
        )
        self.near.clear()
        self.chart.options.clear()
        self.chart.options.update(self._options())
        self.chart.update()

    async def place(self, *_: object) -> None:
        """Put a sentence on the map, with its neighbours."""
        said = (self.sentence.value or "").strip()
        if not said:
            return
        placed = await self._placed(said)
        # Only what is new: all other points are in the browser already.
        self.chart.run_chart_method("setOption", {"series": [{}, {"data": self._here}]})
        self._tell(placed)

    async def _placed(self, said: str) -> Mapping[str, Any]:
        """Where a sentence lies; the map has it from then on."""
        coming = self._view.visit.api.post("/v1/map", {"instruction": said})
        placed = await self._turns.next().wait(coming)
        self._here = [[placed["x"], placed["y"], HERE]]
        return placed

    def _tell(self, placed: Mapping[str, Any]) -> None:
        """What is near, in words."""
        self.near.clear()
        with self.near:
            heading("Nearest", 3)
            for one in placed["near"]:
                with ui.element("p").classes("sample"):
                    choose = self._view.careful(lambda *_, id=one["expert"]: self._choose(id))
                    ui.button(one["expert"], on_click=choose).props("flat dense no-caps")
                    note(
                        f"{one['similarity']:.3f} {self._words(one['expert'], one['instruction'])}"
                    )
            body = {"instruction": self.sentence.value}
            snippets(self._view.visit, "POST", "/v1/map", body)

    def _words(self, id: str, number: int) -> str:
        """An instruction of an expert, by its number."""
        said = self._view.visit.experts.get(id, {}).get("instructions", [])
        return said[number] if number < len(said) else ""

    def _label(self, expert: int, number: int, many: bool) -> str:
        """What is said of a point: of very many, their experts' names alone."""
        id = self._map["experts"][expert]
        return html.escape(id if many else f"{id}: {self._words(id, number)}")

    async def _clicked(self, event: Any) -> None:
        if event.series_index == 0:
            expert = self._map["points"][event.data_index][0]
            await self._choose(self._map["experts"][expert])

    def _options(self) -> dict[str, Any]:
        many = len(self._map["points"]) > MANY
        points = [[x, y, self._label(e, n, many)] for e, n, x, y in self._map["points"]]
        axis = {"scale": True, "axisLabel": {"show": False}, "splitLine": {"show": False},
                "axisTick": {"show": False}, "axisLine": {"show": False}}  # fmt: skip
        return {
            "animation": False, "grid": {"left": 8, "right": 8, "top": 8, "bottom": 8},
            "xAxis": axis, "yAxis": axis,
            "tooltip": {":formatter": "p => p.data[2]"},
            "dataZoom": [{"type": "inside", "xAxisIndex": 0}, {"type": "inside", "yAxisIndex": 0}],
            "series": [
                {"name": "instructions", "type": "scatter", "data": points, "large": many,
                 "symbolSize": 4 if many else 9, "itemStyle": {"color": "#0072b2", "opacity": 0.7}},
                {"name": HERE, "type": "scatter", "symbol": "diamond", "symbolSize": 20,
                 "data": self._here,
                 "itemStyle": {"color": "#d55e00"}, "z": 5},
            ],
        }  # fmt: skip
