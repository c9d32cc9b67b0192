"""The live view: what the server does now, from `/metrics`, and its recent requests."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from nicegui import ui

from server.console.api import Refused
from server.console.figures import History, Look
from server.console.listing import ago
from server.console.palette import COLOURS
from server.console.parts import heading, named, note, snippets, table
from server.console.view import UNKNOWN, View

EVERY, RECENT = 2.0, 10.0
"""Seconds between two looks, and between two at recent requests."""
SHOWN, NAMED = 12, 4
"""Recent requests, and experts of each."""
OWN = frozenset({"/", "/metrics", "/v1/requests", "/console", "/health", "/ready"})
"""Routes that look at the server: what they count would hide what they look at."""
CHARTS = {
    "rates": "Requests and samples a second",
    "latency": "Milliseconds of requests",
    "queue": "Samples in the queue and in a batch",
    "stages": "Milliseconds by stage of a batch",
    "experts": "Experts selected a second",
    "fallbacks": "Fallbacks a second",
    "tiers": "Experts in memory, MB",
    "tokens": "Tokens written a second",
    "first": "Milliseconds to the first token",
}
FOR_GOOD = frozenset({401, 403, 404, 409})
"""After these it is no use to look again."""
LINES = [colour for colour in COLOURS if colour != "#f0e442"]  # yellow cannot be seen on white


class Live(View):
    """Figures that follow the server without a reload."""

    async def build(self, link: str) -> None:
        """The frame; figures come with the first looks."""
        if self.visit.history is None:
            self.visit.history = History(writes=self.visit.sort != "choice")
        self.history = self.visit.history  # goes on where it was left
        with ui.row():
            self.status = note("Waiting for two looks at the server ...")
            self.pause = ui.button("Pause", on_click=self._pause).props("flat dense no-caps")
        self.cards: dict[str, ui.label] = {}
        self.card_row = ui.element("div").classes("cards")
        self.charts: dict[str, ui.echart] = {}
        self.chart_grid = ui.element("div").classes("charts")
        heading("Recent requests")
        self.recent = ui.element("div").classes("wide at-recent")
        snippets(self.visit, "GET", "/metrics")
        self._timers = {
            "figures": ui.timer(EVERY, self.careful(self.look), immediate=True),
            "requests": ui.timer(RECENT, self.careful(self.look_at_requests), immediate=True),
        }

    def _pause(self) -> None:
        paused = self.pause.text == "Pause"
        self.pause.set_text("Go on" if paused else "Pause")
        for timer in self._timers.values():
            timer.deactivate() if paused else timer.activate()

    def _no_more(self, name: str, refused: Refused) -> None:
        """Look there no more, where it is no use; without a key that counts, ask for one."""
        if refused.status in FOR_GOOD:
            self._timers.pop(name).cancel()
        if refused.status == UNKNOWN:
            self.tell(refused)

    async def look(self, *_: object) -> None:
        """Look once; a server that is busy for a moment is looked at again."""
        timer = self._timers["figures"]
        try:
            text = await self.visit.api.text("/metrics")
        except Refused as refused:
            self.status.set_text(str(refused))
            timer.interval = max(EVERY, refused.retry_after)
            self._no_more("figures", refused)
            return
        timer.interval = EVERY
        look = await asyncio.to_thread(Look.of, time.monotonic(), text, OWN)
        if self.place.is_deleted or (found := self.history.add(look)) is None:
            return
        self.status.set_text(f"Every {EVERY:g} seconds, without a reload.")
        self._show_cards(found.cards)
        for chart in found.charts:
            self._draw(chart)

    def _show_cards(self, told: Any) -> None:
        for name, value in told.items():
            if name not in self.cards:
                with self.card_row, ui.element("div").classes("card"):
                    self.cards[name] = ui.label(value).classes("card-value")
                    note(name)
            self.cards[name].set_text(value)

    def _draw(self, name: str) -> None:
        """Draw a chart, once there is something to be seen in it."""
        if name not in self.charts and not self.history.lines(name, 1):
            return
        if name not in self.charts:
            with self.chart_grid, ui.element("figure").classes("chart"):
                ui.label(CHARTS[name]).classes("chart-title")
                chart = named(ui.echart({}).classes("chart-plot"), CHARTS[name])
                self.charts[name] = chart.props("role=img")
        chart = self.charts[name]
        chart.options.clear()
        chart.options.update(_options(self.history, name, dark=self.visit.dark))
        chart.update()

    async def look_at_requests(self, *_: object) -> None:
        """The newest lines of the routing log, where there is one and this key may see it."""
        try:
            told = await self.lasting.wait(self.visit.api.get("/v1/requests", limit=SHOWN))
        except Refused as refused:
            self.recent.clear()
            with self.recent:
                note(str(refused))
            self._no_more("requests", refused)
            return
        self.recent.clear()
        with self.recent:
            if not told["data"]:
                note("None yet.")
                return
            head = ("when", "request", "router", "experts", "confidence", "fallback", "ms")
            table(head, [_row(line) for line in told["data"]])


def _row(line: Any) -> tuple[str, ...]:
    chosen = sorted(line["selection"]["experts"], key=lambda e: -e["weight"])
    experts = ", ".join(f"{e['id']} {e['weight']:.2f}" for e in chosen[:NAMED])
    if len(chosen) > NAMED:
        experts += f" and {len(chosen) - NAMED} more"
    sure = "" if line["confidence"] is None else f"{line['confidence']:.2f}"
    return (ago(line["time"]), line["request_id"][:12], line["router"], experts or "no expert",
            sure, line["fallback"] or "", f"{line['latency_ms']:.1f}")  # fmt: skip


def _options(history: History, name: str, *, dark: bool) -> dict[str, Any]:
    ink = "#c9d1d9" if dark else "#57606a"
    axis = {"axisLabel": {"color": ink}, "axisLine": {"lineStyle": {"color": ink}}}
    grid = {"lineStyle": {"color": "#30363d" if dark else "#e0e6f1"}}
    lines = history.lines(name, len(LINES))
    return {
        "animation": False, "color": LINES,
        "grid": {"left": 48, "right": 12, "top": 28, "bottom": 24},
        "legend": {"top": 0, "type": "scroll", "textStyle": {"color": ink}},
        "tooltip": {"trigger": "axis"},
        "xAxis": {**axis, "type": "value", "max": 0, "min": "dataMin", "splitLine": {"show": False},
                  "axisLabel": {"color": ink, "formatter": "{value} s"}},
        "yAxis": {**axis, "axisLine": {"onZero": False}, "splitLine": grid, "type": "value",
                  "min": 0},
        "series": [
            {"name": line, "type": "line", "showSymbol": False,
             "data": [[round(x, 1), None if y is None else round(y, 3)] for x, y in points]}
            for line, points in lines.items()
        ],
    }  # fmt: skip
