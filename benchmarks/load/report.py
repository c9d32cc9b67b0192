"""From what the phases left behind to figures, a page and its pictures."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.documents import commit, table
from benchmarks.figures import Figure, at_least, at_most, reported
from benchmarks.load import arithmetic as of
from benchmarks.load import plots
from benchmarks.load.arithmetic import timeline
from benchmarks.load.phases import OVERLOAD, SHARE
from benchmarks.load.processes import readings

TAIL, GROWTH, GOODPUT, RECOVERY = 5.0, 2.0, 0.9, 15.0
NEAR = 0.95
"""A load that was less than this part of what it should have been says too little."""
OTHERS = 0.1
"""Where other processes use more cores than this, the figures are not the server's alone."""
Found = Mapping[str, Any]


def searched(found: Found) -> list[Figure]:
    """What the server can do."""
    most = top(found)
    return [
        reported("saturation: right answers/s", most.rate),
        reported("saturation: samples/s", most.samples),
        reported("saturation: users", most.users),
        reported("saturation: latency p50, ms", most.p50_ms),
        at_most("saturation: failed requests", sum(p.failed for p in (*points(found), most)), 0),
    ]


def points(found: Found) -> list[of.Point]:
    """The steps of the search."""
    return [of.Point(**p) for p in found["points"]]


def top(found: Found) -> of.Point:
    """The best step, as it was when asked again."""
    return of.Point(**found["top"])


def own(found: Found) -> of.Point:
    """What a phase's own server could do right before it."""
    return of.Point(**found["own"])


def _speed(phase: str, found: Found) -> list[Figure]:
    """What the phase was held to, and whether the machine was as fast at its end."""
    first, last = own(found), of.Point(**found["after"])
    return [
        reported(f"{phase}: saturation right before, answers/s", first.rate),
        reported(f"{phase}: saturation right after, of that before", last.rate / first.rate),
    ]


def _share(found: Found) -> float:
    """What was asked for, of what the server could do around it: less where the machine sped up."""
    around = mean((own(found).rate, of.Point(**found["after"]).rate))
    return found["rate"] / around


def steady(found: Found, folder: Path) -> list[Figure]:
    """A long time at 80%."""
    lines = timeline.read(folder / "steady.jsonl")
    seconds = of.between(lines, found["from"], found["to"])
    seen = readings(folder / "server.jsonl")
    held = [r["rss"] for r in seen if _in(r, found) and "rss" in r]
    p50, p99 = (of.percentile(seconds, share) for share in (0.5, 0.99))
    ended = of.total(seconds, "answered") + of.total(seconds, "failed")
    return [
        reported("steady: minutes", len(seconds) / 60),
        *_speed("steady", found),
        at_least(
            "steady: arrivals, of the saturation before and after", _share(found), NEAR * SHARE
        ),
        reported("steady: requests/s", ended / len(seconds)),
        at_most(
            "steady: failed requests", of.total(lines, "failed") + found.get("failed_before", 0), 0
        ),
        reported("steady: latency p50, ms", p50),
        reported("steady: latency p99, ms", p99),
        at_most("steady: p99 / p50", p99 / p50, TAIL),
        reported("steady: p99 / p50, of the median minute", of.minute_tail(seconds)),
        reported("steady: resident memory at the end, MB", held[-1] / 2**20),
        at_most("steady: growth of resident memory, %", 100 * of.growth(held), GROWTH),
        *_client("steady", seconds, seen),
    ]


def overloaded(found: Found, folder: Path) -> list[Figure]:
    """Far more than the server can do."""
    top = own(found)
    lines = timeline.read(folder / "overload.jsonl")
    seen = readings(folder / "server.jsonl")
    before = of.between(lines, found["before"], found["from"])
    # The first seconds fill the queue, and so belong to neither.
    seconds = of.between(lines, found["from"] + 2, found["to"])
    offered = sum(of.total(seconds, outcome) for outcome in timeline.OUTCOMES) / len(seconds)
    refused = of.total(seconds, "refused") / len(seconds)
    samples = of.counted(seen, "samples", found["from"], found["to"])
    back = of.recovery(lines, found["to"], of.percentile(before, 0.5))
    return [
        *_speed("overload", found),
        at_least("overload: offered / saturation", offered / top.rate, 0.9 * OVERLOAD),
        reported("overload: refused with Retry-After, /s", refused),
        at_most("overload: failed requests", of.total(lines, "failed"), 0),
        at_least("overload: samples/s, of those at saturation", samples / top.samples, GOODPUT),
        at_least(
            "overload: answers/s of the engine, of those at saturation",
            of.queued(seconds) / len(seconds) / top.queued, GOODPUT,
        ),
        reported("overload: latency p50 of answers, ms", of.percentile(seconds, 0.5)),
        reported("overload: latency p50 of refusals, ms", of.percentile(seconds, 0.5, "refused")),
        at_most("overload: seconds to recover", float("inf") if back is None else back, RECOVERY),
        *_client("overload", seconds, seen),
    ]  # fmt: skip


def _client(
    phase: str, seconds: Sequence[of.Second], seen: Sequence[Mapping[str, float]]
) -> list[Figure]:
    """Whether locust kept up, and whether others used the machine meanwhile."""
    first, last = seconds[0]["second"], seconds[-1]["second"]
    busy = mean(s["client_cpu"] for s in seconds)
    server, all_ = (of.counted(seen, name, first, last) for name in ("cpu", "busy"))
    return [
        reported(f"{phase}: cores the server used", server),
        reported(f"{phase}: cores locust used", busy),
        at_most(f"{phase}: cores others used", max(0.0, all_ - server - busy), OTHERS),
        reported(
            f"{phase}: latest start of a request, ms", 1e3 * max(s["client_lag"] for s in seconds)
        ),
    ]


def _in(reading: Mapping[str, float], found: Found) -> bool:
    return found["from"] <= reading["time"] <= found["to"]


def write(
    folder: Path, found: Mapping[str, Found], figures: Sequence[Figure], page: Path
) -> list[Path]:
    """Write the page and its pictures: of the phases that there are."""
    steps = points(found["search"])
    kept = [plots.saturation(steps, page.with_name("load-saturation.png"))]
    for name in ("steady", "overload"):
        if name in found:
            lines = timeline.read(folder / name / f"{name}.jsonl")
            seen = readings(folder / name / "server.jsonl")
            kept.append(plots.course(lines, seen, _marks(name, found[name]),
                                     page.with_name(f"load-{name}.png")))  # fmt: skip
    page.write_text("\n".join(_page(folder, found, figures, steps)), "utf-8")
    return [page, *kept]


def _marks(name: str, found: Found) -> dict[str, float]:
    if name == "steady":
        return {"measured from here": found["from"]}
    return {f"{OVERLOAD:g}x": found["from"], f"{SHARE:.0%} again": found["to"]}


def _page(
    folder: Path, found: Mapping[str, Found], figures: Sequence[Figure], steps: Sequence[of.Point]
) -> list[str]:
    words = {None: "", True: "yes", False: "**no**"}
    rows = [(f.figure, f"{f.value:g}", f.target or "", words[f.holds]) for f in figures]
    lines = [
        "# Load", "",
        f"Made by `make load MINUTES={found['search']['minutes']:g}` at {commit()}, on "
        f"{len(os.sched_getaffinity(0))} cores: locust has one, the server the others. How it is "
        "measured: [operations.md](operations.md).", "",
        *table(("figure", "value", "target", "holds"), rows),
        "## What the server can do", "",
        "The saturation is the best of these steps, asked again for four times as long.", "",
        "![](load-saturation.png)", "",
        *table(
            ("users", "answers/s", "samples/s", "p50, ms", "p99, ms"),
            [(f"{p.users}", f"{p.rate:.1f}", f"{p.samples:.1f}", f"{p.p50_ms:.0f}",
              f"{p.p99_ms:.0f}") for p in steps],
        ),
    ]  # fmt: skip
    if "steady" in found:
        lines += [f"## {SHARE:.0%} of it, for a long time", "", "![](load-steady.png)", ""]
        head = ("request", "count", "failed", "p50, ms", "p95, ms", "p99, ms")
        lines += table(head, _by_name(folder / "steady" / "steady_stats.csv"))
    if "overload" in found:
        lines += [f"## {OVERLOAD:g} times it", "", "![](load-overload.png)", ""]
    return lines


def _by_name(path: Path) -> list[tuple[str, ...]]:
    """Locust's own statistics by name of request, of the whole phase."""
    names = ("Name", "Request Count", "Failure Count", "50%", "95%", "99%")
    with path.open(encoding="utf-8") as file:
        return [tuple(row[name] for name in names) for row in csv.DictReader(file)]
