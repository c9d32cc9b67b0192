"""Pictures of a load test: the search, the long run second by second, the overload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Picture

from benchmarks.load import arithmetic as of

PERCENTILES = {0.5: "#20639b", 0.9: "#3caea3", 0.99: "#b5482a"}
COLOURS = {"answered": "#20639b", "refused": "#e0a030", "failed": "#b5482a"}
POINTS = 240
"""A line has about so many points, whatever the span."""


def saturation(points: Sequence[of.Point], target: Path) -> Path:
    """Throughput and latency against users."""
    picture = Picture(figsize=(7, 3.4), dpi=120, layout="constrained")
    rates, latencies = picture.subplots(1, 2)
    users = [p.users for p in points]
    rates.plot(users, [p.rate for p in points], "o-", color="#20639b")
    rates.set(ylabel="right answers per second", ylim=(0, None))
    latencies.plot(users, [p.p50_ms for p in points], "o-", color=PERCENTILES[0.5], label="p50")
    latencies.plot(users, [p.p99_ms for p in points], "o-", color=PERCENTILES[0.99], label="p99")
    latencies.set(ylabel="latency, ms", ylim=(0, None))
    latencies.legend(frameon=False)
    for axes in (rates, latencies):
        axes.set(xlabel="users who ask again at once", xlim=(0, None))
    return _kept(picture, [rates, latencies], target)


def course(
    seconds: Sequence[of.Second], readings: Sequence[Mapping[str, float]],
    marks: Mapping[str, float], target: Path,
) -> Path:  # fmt: skip
    """A run over time: latency, requests by how they ended, the server's memory.

    Args:
        marks: times to draw a line at, by name.
    """
    picture = Picture(figsize=(8, 7), dpi=120, layout="constrained")
    latency, rates, memory = panels = picture.subplots(3, 1, sharex=True)
    begun = seconds[0]["second"]
    spans = _spans(seconds)
    at = [(span[0]["second"] - begun) / 60 for span in spans]
    for share, colour in PERCENTILES.items():
        line = [of.percentile(span, share) for span in spans]
        latency.plot(at, line, color=colour, label=f"p{100 * share:.0f}", linewidth=1.2)
    latency.set(ylabel="latency, ms", yscale="log")
    for outcome, colour in COLOURS.items():
        line = [of.total(span, outcome) / len(span) for span in spans]
        if any(line) or outcome == "failed":
            rates.plot(at, line, color=colour, label=outcome, linewidth=1.2)
    rates.set(ylabel="requests per second", ylim=(0, None))
    held = [r for r in readings if "rss" in r]
    memory.plot(
        [(r["time"] - begun) / 60 for r in held], [r["rss"] / 2**20 for r in held], color="#555555"
    )
    memory.set(ylabel="resident memory, MB", xlabel="minutes", ylim=(0, None))
    for axes in (latency, rates):
        axes.legend(frameon=False, ncols=3, loc="upper right", fontsize=8)
    for name, when in marks.items():
        for axes in panels:
            axes.axvline((when - begun) / 60, color="#999999", linewidth=0.8, linestyle=":")
        latency.annotate(
            name, ((when - begun) / 60, 1.0), (3, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8, color="#666666",
        )  # fmt: skip
    return _kept(picture, list(panels), target)


def _spans(seconds: Sequence[of.Second]) -> list[Sequence[of.Second]]:
    """The seconds in groups of equal length, few enough to draw."""
    size = max(1, -(-len(seconds) // POINTS))
    return [seconds[i : i + size] for i in range(0, len(seconds), size)]


def _kept(picture: Picture, panels: Sequence[Any], target: Path) -> Path:
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Without the version of matplotlib, equal pictures are equal files.
    picture.savefig(target, metadata={"Software": None})
    return target
