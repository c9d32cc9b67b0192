"""The phases of a load test, each with a fresh server of its own and kept when it is done.

`search` finds with how many users the server does most, `steady` asks for 80% of that for a long
time, `overload` for three times it. A shared machine is not as fast in every quarter of an hour, so
each of the two first asks its own server what it can do now, and again at its end. A run that was
cut off goes on with the phase it was in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.documents import commit
from benchmarks.load import arithmetic as of
from benchmarks.load.processes import Server, locust, readings, server, watched

SHARE, OVERLOAD = 0.8, 3.0
NEARLY = 0.95
"""Of the saturation, at random, the last part of a long phase's warm-up has."""
USERS = (2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
ENOUGH = 32
"""Users who can fill a batch: fewer say little of what the server can do."""
AGAIN = 4
"""So many times as long as a step the best one is asked again."""
QUEUE_SECONDS = 1.5
"""The queue takes what the server answers in this time: bursts at 80% fit in, and longer queues
only make all wait."""
SERVER = ("--feature-entries", "4096")
"""Features of texts that never come again fill their cache for hours: a small one is full after the
warm-up, so that what grows then is something else."""
WARMING = (4, 8, 16, 32)
"""Users of the parts of a warm-up: kernels are made and memory is kept for batches of each size."""
DONE = "done.json"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How long each part takes, in seconds."""

    minutes: float

    @property
    def steady(self) -> float:
        """At 80%, after the warm-up."""
        return 60 * self.minutes

    @property
    def warm_up(self) -> float:
        """Before each measurement: loops are compiled, caches and kept memory fill."""
        return min(90.0, max(10.0, self.steady / 8))

    @property
    def stir(self) -> float:
        """After it, before a long phase: memory is kept for bursts of all sizes."""
        return 2 * self.warm_up

    @property
    def gauge(self) -> float:
        """To ask a warm server what it can do."""
        return AGAIN * self.step

    @property
    def step(self) -> float:
        """One step of the search; its first third is not counted."""
        return min(25.0, max(12.0, self.steady / 10))

    @property
    def overload(self) -> float:
        """At three times the saturation; half as long before it and after it."""
        return min(120.0, max(20.0, self.steady / 3))


def search(plan: Plan, folder: Path, tell: Tell) -> dict[str, Any]:
    """Add users, who ask again as soon as they are answered, until that brings no more.

    The best of many steps was a lucky one too, so it is asked again for longer: that is the top.
    """
    points: list[of.Point] = []
    with server(*SERVER) as under, watched(under, folder / "server.jsonl"):
        _warm(plan, under, folder)
        for users in USERS:
            points.append(_asked(under, folder, f"{users}", users, plan.step, tell))
            if users >= ENOUGH and of.levelled(points):
                break
        top = _asked(under, folder, "top", of.best(points).users, plan.gauge, tell)
    found = [asdict(p) for p in points]
    return {"points": found, "levelled": of.levelled(points), "top": asdict(top)}


@contextmanager
def _gauged(
    plan: Plan, folder: Path, tell: Tell, top: of.Point
) -> Generator[tuple[Server, of.Point]]:
    """A fresh, warm server with a queue, and what it can do now."""
    with server(*SERVER, *_queue(top)) as under, watched(under, folder / "server.jsonl"):
        _warm(plan, under, folder)
        yield under, _asked(under, folder, "gauge", top.users, plan.gauge, tell)


def _asked(under: Server, folder: Path, name: str, users: int, span: float, tell: Tell) -> of.Point:
    """What users get who ask again at once, for so many seconds."""
    seconds = locust(under, folder, name, span, "--think", "0", users=users)
    found = _point(users, seconds, folder / "server.jsonl")
    tell(f"{users} users: {found.rate:.1f}/s, p50 {found.p50_ms:.0f} ms")
    return found


def _point(users: int, seconds: list[dict[str, Any]], watch: Path) -> of.Point:
    """What a step shows, without its first third and its last, broken second."""
    first, last = seconds[0]["second"], seconds[-1]["second"]
    first = math.ceil(first + (last - first) / 3)
    counted, span = of.between(seconds, first, last), last - first
    return of.Point(
        users=users,
        rate=of.total(counted, "answered") / span,
        queued=of.queued(counted) / span,
        samples=of.counted(readings(watch), "samples", first, last),
        p50_ms=of.percentile(counted, 0.5),
        p99_ms=of.percentile(counted, 0.99),
        failed=of.total(seconds, "failed"),
    )


def steady(plan: Plan, folder: Path, tell: Tell, top: of.Point) -> dict[str, Any]:
    """Random arrivals at 80%: nothing may fail, and nothing may grow."""
    with _gauged(plan, folder, tell, top) as (under, own):
        nearly = ("--rate", f"{NEARLY * own.rate}", "--allow-refusals")
        stirred = locust(under, folder, "stir", plan.stir, *nearly)
        rate = SHARE * own.rate
        tell(f"{rate:.1f} requests/s for {plan.steady:.0f} s")
        seconds = locust(under, folder, "steady", plan.steady, "--rate", f"{rate}")
        after = _asked(under, folder, "after", top.users, plan.gauge, tell)
    begun = seconds[0]["second"]
    return {
        "rate": rate,
        "own": asdict(own),
        "after": asdict(after),
        "from": begun,
        "to": begun + plan.steady,
        "failed_before": of.total(stirred, "failed"),
    }


def overload(plan: Plan, folder: Path, tell: Tell, top: of.Point) -> dict[str, Any]:
    """80%, then three times the saturation, then 80% again."""
    before = after = plan.overload / 2
    with _gauged(plan, folder, tell, top) as (under, own):
        calm, heavy = SHARE * own.rate, OVERLOAD * own.rate
        rates = f"{calm}:{before},{heavy}:{plan.overload},{calm}"
        tell(f"{heavy:.1f} requests/s for {plan.overload:.0f} s")
        # Arrivals begin when locust has found out what is served; its first second says when.
        span = before + plan.overload + after
        seconds = locust(under, folder, "overload", span, "--rate", rates, "--allow-refusals")
        last = _asked(under, folder, "after", top.users, plan.gauge, tell)
    begun = seconds[0]["second"]
    return {
        "rate": heavy,
        "own": asdict(own),
        "after": asdict(last),
        "before": begun + before / 3,
        "from": begun + before,
        "to": begun + before + plan.overload,
        "until": begun + span,
    }


def _warm(plan: Plan, under: Server, folder: Path) -> None:
    """As fast as it goes, in batches of all sizes."""
    for users in WARMING:
        span = round(plan.warm_up / len(WARMING))  # locust takes whole seconds
        locust(under, folder, f"warm-{users}", span, "--think", "0", users=users)


def _queue(top: of.Point) -> tuple[str, ...]:
    return ("--max-queue", str(max(32, round(QUEUE_SECONDS * top.samples))))


def kept(folder: Path, plan: Plan, name: str, run: Callable[[Path], dict[str, Any]]) -> Any:
    """What a phase found, now or in an earlier run of the same plan and code."""
    if (told := done(folder, plan, name)) is not None:
        return told
    at = folder / name
    for left in at.glob("*"):
        left.unlink()
    at.mkdir(parents=True, exist_ok=True)
    told = {"minutes": plan.minutes, "commit": commit(), **run(at)}
    (at / DONE).write_text(json.dumps(told, indent=1), "utf-8")
    return told


def done(folder: Path, plan: Plan, name: str) -> dict[str, Any] | None:
    """What a phase found earlier, if it came to its end."""
    path = folder / name / DONE
    told = json.loads(path.read_text("utf-8")) if path.exists() else {}
    same = (told.get("minutes"), told.get("commit")) == (plan.minutes, commit())
    return told if same else None
