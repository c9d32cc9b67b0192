"""The page on capacity, and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure as Picture

from benchmarks.capacity.costs import LOAD_SHARE, Costs
from benchmarks.capacity.plan import HELD, MANY, Compared, Planned
from benchmarks.documents import commit, table
from benchmarks.figures import Figure

OURS, THEIRS = "#20639b", "#b5482a"
PICTURE = "capacity-node.png"
BALANCING = {
    "any": "any replica", "fewer": "the one of two with fewer", "holder": "who holds the expert"
}  # fmt: skip


def write(
    page: Path, costs: Costs, curve: Sequence[Compared], loads: Sequence[Planned],
    libraries: Sequence[Planned], figures: Sequence[Figure],
) -> list[Path]:  # fmt: skip
    """Write the page and its picture."""
    picture = page.with_name(PICTURE)
    _draw(curve, picture)
    lines = [
        *_head(costs),
        *_formula(costs),
        *_proof(curve, figures),
        *_more_load(loads),
        *_more_experts(libraries, costs),
        *UNKNOWN,
    ]
    page.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    return [page, picture]


def _head(costs: Costs) -> list[str]:
    rows = [
        ("request: read it, write the answer", costs.request),
        ("wake: the event loop, to read what came and to write a batch's answers", costs.wake),
        ("batch: whatever is in it", costs.batch),
        ("sample: features, routing, its share of the pass", costs.sample),
        ("score: per sample and 1,000 experts more", 1e3 * costs.score),
        ("load: an expert that is not in memory", costs.load),
        ("idle: nobody computes", costs.idle),
    ]
    return [
        "# Capacity", "",
        f"How many replicas a load needs. Made by `make capacity` at {commit()}; a replica is one "
        "server with one core and the demo library. Your machine has other costs: run it there. "
        "What they are and how the server is loaded: [operations.md](operations.md).", "",
        "## What a request costs", "",
        "From closed loops whose clients are all in one batch, by what the server counts: seconds "
        "of its engine per batch, and of CPU per request. Score and load are of `python -m "
        "benchmarks library`, over 10,000 experts.", "",
        *table(("cost", "ms"), [(name, f"{1e3 * value:.2f}") for name, value in rows]),
    ]  # fmt: skip


def _formula(costs: Costs) -> list[str]:
    each = costs.per_request()
    return [
        "## The formula", "",
        "```text",
        "each = request + wake / 2 + sample",
        "replicas = ceil( rate * (each + misses * load) / load_share )",
        "mean latency = idle + 1.5 * (batch + wake / 2) / (1 - rate_of_one * each)"
        "    once batches grow",
        "```", "",
        f"Here a request costs {1e3 * each:.2f} ms of a core in large batches: a replica answers "
        f"at most {1 / each:.0f} per second, and {LOAD_SHARE * 100:.0f}% of that, "
        f"{LOAD_SHARE / each:.0f}, is what to give it: the rest is for bursts and for a lost "
        "neighbour. A busy engine says little, since small batches cost more per sample than large "
        "ones and are run whenever something waits: it is busy long before it is full. A request "
        "with several questions counts as that many. For a server that runs, the same comes from "
        "Prometheus at high load: "
        "`rate(process_cpu_seconds_total) / rate(sailplane_batch_samples_sum)`.", "",
    ]  # fmt: skip


def _proof(curve: Sequence[Compared], figures: Sequence[Figure]) -> list[str]:
    words = {None: "", True: "yes", False: "**no**"}
    return [
        "## Does the simulation hold?", "",
        "Each step measured in three rounds, of which the one in the middle counts, and simulated "
        "from the costs above: closed loops of up to one batch gave those, the others are "
        "foretold. Random arrivals are an open loop: nobody waits for an answer; the simulation "
        "has them at the times at which they were sent.", "",
        "Near its limit a server turns a machine that is slower by some percent into queues that "
        "are longer by many, and this one's speed changes by the minute. `Speed` is what the "
        "server's counter of CPU says of the minute: what a request should cost in batches of the "
        "size counted, over what it cost. The simulation has the costs at that speed; `foretold` "
        "is at speed 1. Means and medians are held to 15%, up to 80% of the most; tails are only "
        "told.", "",
        f"![]({PICTURE})", "",
        *table(
            ("load", "speed", "answers/s", "simulated", "mean, ms", "simulated", "foretold",
             "p99, ms", "simulated"),
            [
                (_load(c), f"{c.speed:.2f}", f"{c.step.rate:.1f}", f"{c.rate:.1f}",
                 f"{c.step.mean_ms:.0f}", f"{c.mean_ms:.0f}", f"{c.foretold_ms:.0f}",
                 f"{c.step.p99_ms:.0f}", f"{c.p99_ms:.0f}")
                for c in curve
            ],
        ),
        *table(
            ("figure", "value", "target", "holds"),
            [(f.figure, f"{f.value:g}", f.target or "", words[f.holds]) for f in figures],
        ),
    ]  # fmt: skip


def _load(compared: Compared) -> str:
    connections = compared.step.connections
    return f"{connections} at once" if connections else f"{compared.step.rate:.0f}/s at random"


def _more_load(loads: Sequence[Planned]) -> list[str]:
    return [
        "## More load", "",
        "Replicas by the formula; latencies as simulated, each request going to the one of two "
        "replicas, drawn at random, that has fewer. More replicas even out bursts.", "",
        *table(
            ("requests/s", "replicas", "mean by formula, ms", "mean, ms", "p50, ms", "p99, ms"),
            [(f"{p.rate:,.0f}", f"{p.replicas:,}", f"{p.formula_ms:.0f}", f"{p.mean_ms:.0f}",
              f"{p.p50_ms:.0f}", f"{p.p99_ms:.0f}") for p in loads],
        ),
    ]  # fmt: skip


def _more_experts(libraries: Sequence[Planned], costs: Costs) -> list[str]:
    return [
        "## More experts", "",
        f"{MANY:,} requests per second, popularity by Zipf's law, memory for {HELD:,} experts at "
        "each replica. Every sample is scored against all experts; one that is not in memory is "
        f"loaded by the batch that needs it, {1e3 * costs.load:.1f} ms each. \"Who holds the "
        "expert\" sends a request to one of the replicas that have it in memory, unless they have "
        "more than a batch to do; that needs a balancer that knows, as Ray's does for requests "
        "that name their expert (`by_expert=true`).", "",
        *table(
            ("experts", "sent to", "misses per request", "replicas", "mean, ms", "p50, ms",
             "p99, ms"),
            [(f"{p.experts:,}", BALANCING[p.balancing], f"{p.misses:.4f}", f"{p.replicas:,}",
              f"{p.mean_ms:.0f}", f"{p.p50_ms:.0f}", f"{p.p99_ms:.0f}") for p in libraries],
        ),
    ]  # fmt: skip


UNKNOWN = [
    "## What this does not know", "",
    "Networks and proxies; machines that differ; cores beyond one per replica (a wider pass is "
    "faster, but the event loop and the engine share one interpreter lock); longer inputs, which "
    "cost about in proportion; texts that come again, which cost less; generation, whose rows stay "
    "for many steps (see [generation](../benchmarks/generation/README.md)); what becomes of "
    "requests when a replica dies. Only one replica was measured: rows above one are simulated.",
]  # fmt: skip


def _draw(curve: Sequence[Compared], target: Path) -> None:
    """Throughput and latency of closed loops, latency of random arrivals."""
    picture = Picture(figsize=(9, 3), dpi=120, layout="constrained")
    rates, closed, open_ = picture.subplots(1, 3)
    loops = [c for c in curve if c.step.connections]
    arrivals = [c for c in curve if not c.step.connections]
    at = [c.step.connections for c in loops]
    _pair(rates, at, [c.step.rate for c in loops], [c.rate for c in loops])
    _pair(closed, at, [c.step.mean_ms for c in loops], [c.mean_ms for c in loops])
    _pair(
        open_, [c.step.rate for c in arrivals], [c.step.mean_ms for c in arrivals],
        [c.mean_ms for c in arrivals],
    )  # fmt: skip
    rates.set(ylabel="answers per second", ylim=(0, None))
    closed.set(ylabel="mean latency, ms", yscale="log")
    open_.set(ylabel="mean latency, ms", xlabel="random arrivals per second", ylim=(0, None))
    for axes in (rates, closed):
        axes.set(xlabel="connections", xscale="log")
    rates.legend(frameon=False)
    for axes in (rates, closed, open_):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(target, metadata={"Software": None})


def _pair(axes: object, at: Sequence[float], real: Sequence[float], ours: Sequence[float]) -> None:
    axes.plot(at, real, "o", color=THEIRS, label="measured")  # type: ignore[attr-defined]
    axes.plot(at, ours, "-", color=OURS, label="simulated")  # type: ignore[attr-defined]
