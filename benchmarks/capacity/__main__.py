"""`python -m benchmarks.capacity`: measure one server, hold the simulation against it, go further.

A quarter of an hour on two quiet cores. `--again` makes the page anew from what was measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console

from benchmarks.capacity import measure, page, plan
from benchmarks.capacity.costs import Step, fitted, typical
from benchmarks.figures import Figure, at_most, reported, save, show
from benchmarks.places import CACHE, DOCS, RESULTS
from benchmarks.processes import BenchmarkError

KEPT = CACHE / "capacity.json"
ROUNDS = 3
SECONDS, LONG = 8.0, 25.0
"""Of a closed loop, and of random arrivals, in each round."""
OFF = 15.0
TRUSTED = 0.85
"""Above this share of the most, where queues have no end, random arrivals are only reported."""


def main() -> None:
    """Measure, simulate, write."""
    parser = argparse.ArgumentParser("python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--again", action="store_true", help="measure nothing")
    given = parser.parse_args()
    console = Console()
    try:
        steps = _kept() if given.again else _measured(console)
    except BenchmarkError as error:
        parser.exit(1, f"Error: {error}\n")
    loops = [s for s in steps if s.connections]
    costs = fitted(loops, **_costs_of_experts())
    console.print("[dim]simulating ...[/]")
    curve = plan.compared(costs, steps)
    figures = _figures(curve)
    loads, libraries = list(plan.by_rate(costs)), list(plan.by_experts(costs))
    show("capacity", figures, console)
    written = page.write(DOCS / "capacity.md", costs, curve, loads, libraries, figures)
    for path in (save("capacity", figures), *written):
        console.print(f"[dim]  {path}[/]", soft_wrap=True)


def _measured(console: Console) -> list[Step]:
    rounds: list[list[Step]] = []
    with measure.subject() as under:
        for number in range(ROUNDS):
            steps: list[Step] = []
            for connections in measure.CONNECTIONS:
                steps.append(measure.closed(under, connections, SECONDS))
                console.print(f"[dim]  {number}: {connections} at once: {steps[-1].rate:.1f}/s[/]")
            most = max(step.rate for step in [*rounds, steps][0])
            for share in measure.SHARES:
                steps.append(measure.at_random(under, share * most, LONG))
                console.print(
                    f"[dim]  {number}: {share:.0%} at random: {steps[-1].mean_ms:.0f} ms[/]"
                )
            rounds.append(steps)
    steps = typical(rounds)
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps([asdict(step) for step in steps], indent=1), "utf-8")
    return steps


def _kept() -> list[Step]:
    if not KEPT.exists():
        raise BenchmarkError("Nothing was measured yet: run it without --again.")
    steps = [Step(**step) for step in json.loads(KEPT.read_text("utf-8"))]
    if not all(step.connections or step.arrivals for step in steps):
        raise BenchmarkError("What was measured is of an older version: run it without --again.")
    return steps


def _costs_of_experts() -> dict[str, float]:
    """Seconds to score one expert more, and to load one: the figures of `benchmarks.library`."""
    told = json.loads((RESULTS / "library.json").read_text("utf-8"))
    values = {figure["figure"]: figure["value"] for figure in told}
    more = values["routing one query over all, ms"] - values["routing one query over 18, ms"]
    load = (
        values["load from disk to the host, p50 ms"]
        + values["load from the host to the device, p50 ms"]
    )
    return {"score": more / (10_000 - 18) / 1e3, "load": load / 1e3}


def _figures(curve: Sequence[plan.Compared]) -> list[Figure]:
    loops = [c for c in curve if c.step.connections]
    arrivals = [c for c in curve if not c.step.connections]
    most = max(c.step.rate for c in loops)
    trusted = [c for c in arrivals if c.step.rate <= TRUSTED * most]
    off = "simulation off, %: "
    return [
        at_most(f"{off}throughput of closed loops", 100 * max(c.rate_off for c in loops), OFF),
        at_most(f"{off}p50 of closed loops", 100 * max(c.p50_off for c in loops), OFF),
        at_most(
            f"{off}mean latency of random arrivals up to 80%",
            100 * max(c.mean_off for c in trusted), OFF,
        ),
        reported(
            f"{off}the same, foretold at speed 1", 100 * max(c.foretold_off for c in trusted)
        ),
        reported(f"{off}p99, the worst", 100 * max(c.p99_off for c in curve)),
        *(
            reported(f"{off}mean latency of random arrivals at 90%", 100 * c.mean_off)
            for c in arrivals if c not in trusted
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
