"""The map: every instruction of every expert as a point, and where a sentence lies among them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nicegui import ui

from server.console.parts import heading, note, snippets, told
from server.console.visit import Visit

Choose = Callable[[str], Awaitable[None]]
MANY = 2000
"""Points beyond which they are drawn plainly, so that the map stays quick."""


class Atlas:
    """The library's instructions on a plane.

    Args:
        choose: told the expert whose point was clicked.
    """

    def __init__(self, visit: Visit, choose: Choose) -> None:
        self.visit, self._choose = visit, choose
        self._map: Mapping[str, Any] = {"experts": [], "points": []}

    async def build(self) -> None:
        """The frame, and the points in it."""
        heading("Map of instructions")
        self.about = note("")
        with ui.row().classes("wide"):
            self.sentence = ui.input("A task in a sentence").props("outlined dense").classes("grow")
            self.sentence.classes("at-map-sentence").on("keydown.enter", self.place)
            ui.button("Where is it?", on_click=self.place).classes("at-map-place")
        self.chart = ui.echart(self._options(None), on_point_click=self._clicked).classes("map")
        self.chart.props('role="img" aria-label="Map of instructions"').classes("at-map")
        self.near = ui.element("div").classes("at-near")
        snippets(self.visit, "GET", "/v1/map")
        await self.look()
        if self.visit.asked and self.visit.traced:  # what was asked in the other view
            self.sentence.value = self.visit.asked
            await self.place()

    async def look(self) -> None:
        """Ask for the points again."""
        self._map = await self.visit.api.get("/v1/map")
        part = sum(self._map["told"])
        self.about.set_text(
            f"{len(self._map['points'])} instructions of {len(self._map['experts'])} experts. The "
            f"plane shows {part:.0%} of how they differ: near on the map may be far apart, so "
            "neighbours are told by the embeddings themselves."
        )
        self._draw(None)

    @told
    async def place(self) -> None:
        """Put a sentence on the map, with its neighbours."""
        said = (self.sentence.value or "").strip()
        if not said:
            return
        placed = await self.visit.api.post("/v1/map", {"instruction": said})
        self._draw(placed)
        self.near.clear()
        with self.near:
            heading("Nearest", 3)
            for one in placed["near"]:
                with ui.element("p").classes("sample"):
                    ui.button(
                        one["expert"], on_click=lambda id=one["expert"]: self._choose(id)
                    ).props("flat dense no-caps")
                    note(f"{one['similarity']:.3f} {self._words(one)}")

    def _words(self, near: Mapping[str, Any]) -> str:
        said = self.visit.experts.get(near["expert"], {}).get("instructions", [])
        number = near["instruction"]
        return said[number] if number < len(said) else ""

    async def _clicked(self, event: Any) -> None:
        if event.series_name == "instructions":
            expert = self._map["points"][event.data_index][0]
            await self._choose(self._map["experts"][expert])

    def _draw(self, placed: Mapping[str, Any] | None) -> None:
        self.chart.options.clear()
        self.chart.options.update(self._options(placed))
        self.chart.update()

    def _options(self, placed: Mapping[str, Any] | None) -> dict[str, Any]:
        names, many = self._map["experts"], len(self._map["points"]) > MANY
        points = [[x, y, names[e]] for e, _, x, y in self._map["points"]]
        axis = {"scale": True, "axisLabel": {"show": False}, "splitLine": {"show": False}}
        series: list[dict[str, Any]] = [{
            "name": "instructions", "type": "scatter", "data": points, "large": many,
            "symbolSize": 4 if many else 9, "itemStyle": {"color": "#0072b2", "opacity": 0.7},
        }]  # fmt: skip
        if placed:
            series.append({
                "name": "your sentence", "type": "scatter", "symbol": "diamond", "symbolSize": 20,
                "data": [[placed["x"], placed["y"], "your sentence"]],
                "itemStyle": {"color": "#d55e00"}, "z": 5,
            })  # fmt: skip
        return {
            "animation": False, "grid": {"left": 8, "right": 8, "top": 8, "bottom": 8},
            "xAxis": axis, "yAxis": axis,
            "tooltip": {":formatter": "p => p.data[2]"},
            "dataZoom": [{"type": "inside", "xAxisIndex": 0}, {"type": "inside", "yAxisIndex": 0}],
            "series": series,
        }  # fmt: skip
