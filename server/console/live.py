"""The live view: what the server does now, from `/metrics`, and its recent requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nicegui import ui

from server.console.api import Refused
from server.console.figures import History, Look, Span
from server.console.listing import ago
from server.console.palette import COLOURS
from server.console.parts import heading, note, snippets, table
from server.console.visit import Visit

EVERY = 2.0
"""Seconds between two looks."""
SHOWN = 12
OWN = frozenset({"/metrics", "/v1/requests", "/console", "/health", "/ready"})
"""Routes that look at the server: what they count would hide what they look at."""
STAGES = ("instruction", "embed", "select", "load", "forward")


class Live:
    """Figures that follow the server without a reload."""

    def __init__(self, visit: Visit) -> None:
        self.visit, self.history = visit, History()

    async def build(self) -> None:
        """The frame; figures come with the first looks."""
        self.status = note("Waiting for two looks at the server ...").classes("at-live-status")
        self.cards = ui.element("div").classes("cards").classes("at-cards")
        with ui.element("div").classes("charts"):
            self.rates = _chart("Requests and samples a second")
            self.latency = _chart("Milliseconds")
            self.queue = _chart("Queue and batch, samples")
            self.stages = _chart("Time per stage of a batch, milliseconds")
            self.experts = _chart("Experts selected a second")
            self.fallbacks = _chart("Fallbacks a second")
            self.tiers = _chart("Experts in memory, MB")
        heading("Recent requests")
        self.recent = ui.element("div").classes("wide").classes("at-recent")
        snippets(self.visit, "GET", "/metrics")
        await self.look()
        ui.timer(EVERY, self.look, immediate=False)

    async def look(self) -> None:
        """Look once; a server that is away for a moment is looked at again."""
        try:
            text = await self.visit.api.text("/metrics")
        except Refused as refused:
            self.status.set_text(str(refused))
            return
        self.history.add(Look.of(time.monotonic(), text).without("route", OWN))
        if (span := self.history.last) is None:
            return
        self.status.set_text(f"Every {EVERY:g} seconds, without a reload.")
        self._cards(span)
        self._charts(list(self.history.spans()))
        await self._recent()

    def _cards(self, span: Span) -> None:
        p50, p99 = (span.quantile("request_seconds", q) for q in (0.5, 0.99))
        hits, asked = (span.rise(f"expert_cache_{n}_total") for n in ("hits", "lookups"))
        facts = [
            ("requests/s", f"{span.rate('request_seconds_count'):.1f}"),
            ("samples/s", f"{span.rate('batch_samples_sum'):.1f}"),
            ("p50", _ms(p50)), ("p99", _ms(p99)),
            ("in flight", f"{span.after.value('requests_in_flight'):.0f}"),
            ("queue", f"{span.after.value('queue_samples'):.0f}"),
            ("engine busy", f"{span.rate('engine_busy_seconds_total'):.0%}"),
            ("cache hits", f"{hits / asked:.0%}" if asked else "-"),
        ]  # fmt: skip
        self.cards.clear()
        with self.cards:
            for name, value in facts:
                with ui.element("div").classes("card"):
                    ui.label(value).classes("card-value")
                    note(name)

    def _charts(self, spans: Sequence[Span]) -> None:
        at = [span.after.at - spans[-1].after.at for span in spans]
        ms = 1e3
        _lines(
            self.rates,
            at,
            {
                "requests": [s.rate("request_seconds_count") for s in spans],
                "samples": [s.rate("batch_samples_sum") for s in spans],
            },
        )
        _lines(
            self.latency,
            at,
            {
                f"p{q * 100:.0f}": [_times(s.quantile("request_seconds", q), ms) for s in spans]
                for q in (0.5, 0.9, 0.99)
            },
        )
        _lines(
            self.queue,
            at,
            {
                "waiting": [s.after.value("queue_samples") for s in spans],
                "in a batch (mean)": [s.mean("batch_samples") for s in spans],
            },
        )
        _lines(
            self.stages,
            at,
            {
                stage: [_times(s.mean("stage_seconds", stage=stage), ms) for s in spans]
                for stage in STAGES
            },
        )
        _lines(self.experts, at, _by(spans, "experts_selected_total", "expert"))
        _lines(self.fallbacks, at, _by(spans, "routing_fallback_total", "reason"))
        tiers = sorted({t for s in spans for t in s.after.by("expert_cache_bytes", "tier")})
        _lines(self.tiers, at, {
            t: [s.after.value("expert_cache_bytes", tier=t) / 2**20 for s in spans] for t in tiers
        })  # fmt: skip

    async def _recent(self) -> None:
        """The newest lines of the routing log, where there is one and this key may see it."""
        self.recent.clear()
        with self.recent:
            try:
                lines = (await self.visit.api.get("/v1/requests", limit=SHOWN))["data"]
            except Refused as refused:
                note(str(refused))
                return
            rows = [
                (ago(line["time"]), line["request_id"][:12], line["router"],
                 ", ".join(f"{e['id']} {e['weight']:.2f}" for e in line["selection"]["experts"])
                 or "no expert",
                 "" if line["confidence"] is None else f"{line['confidence']:.2f}",
                 line["fallback"] or "", f"{line['latency_ms']:.1f}")
                for line in lines
            ]  # fmt: skip
            table(("when", "request", "router", "experts", "confidence", "fallback", "ms"), rows)


def _by(spans: Sequence[Span], name: str, label: str) -> dict[str, list[float | None]]:
    """A counter's rates by a label, the greatest first."""
    rises = [s.rises(name, label) for s in spans]
    totals: dict[str, float] = {}
    for rise in rises:
        for key, value in rise.items():
            totals[key] = totals.get(key, 0.0) + value
    best = sorted(totals, key=lambda k: -totals[k])[: len(COLOURS)]
    return {
        key: [rise.get(key, 0.0) / span.seconds for rise, span in zip(rises, spans, strict=True)]
        for key in best
    }


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.0f} ms"


def _chart(title: str) -> ui.echart:
    with ui.element("figure").classes("chart"):
        ui.label(title).classes("chart-title")
        return ui.echart({}).classes("chart-plot").props(f'role="img" aria-label="{title}"')


def _lines(chart: ui.echart, at: Sequence[float], lines: dict[str, Any]) -> None:
    chart.options.clear()
    chart.options.update({
        "animation": False, "color": list(COLOURS),
        "grid": {"left": 48, "right": 12, "top": 28, "bottom": 24},
        "legend": {"top": 0, "type": "scroll", "textStyle": {"color": "#888"}},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "value", "max": 0, "min": "dataMin",
                  "axisLabel": {"formatter": "{value} s"}, "splitLine": {"show": False}},
        "yAxis": {"type": "value", "min": 0},
        "series": [
            {"name": name, "type": "line", "showSymbol": False,
             "data": [[round(x, 1), None if y is None else round(y, 3)]
                      for x, y in zip(at, values, strict=True)]}
            for name, values in lines.items()
        ],
    })  # fmt: skip
    chart.update()
