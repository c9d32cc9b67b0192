"""Every Prometheus metric of the server, in one registry per app.

Labels never carry text of a request. Expert ids are labels for the first `expert_labels` experts
seen; all others count as `other`, so that a large library cannot swell a scrape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Sequence
from typing import TYPE_CHECKING, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from experts.tiers import Tier
from routers.types import Mode
from server.engine.generation.loop import GenerationLoop
from server.engine.messages import Outcome, Trace
from server.observability.collectors import (
    FeatureCollector,
    LibraryCollector,
    TierCollector,
)
from server.observability.folding import BY_KEY, OTHER, FoldedCollector
from server.observability.generation import GenerationMetrics, LoopCollector
from server.observability.usage import Usage

if TYPE_CHECKING:
    from server.engine.run import Engine

MILLISECONDS = (.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30)  # fmt: skip
MICROSECONDS = (.00001, .00002, .00005, .0001, .0002)  # fmt: skip
"""Below those, for what often has nothing to do: a stage that finds all in memory, a queue."""
MINUTES = (60, 120, 300, 600)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SCORES = (-0.75, -0.5, -0.25, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)
"""Of probabilities and of cosines, which may be negative: so Prometheus keeps no sum of them."""
CONFIDENCES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)
"""Fine where they crowd, and with an edge at 0.5, below which no expert surely fits."""
FALLBACKS = ("instruction_writer", "narrowed", "truncated", "load_failed", "no_expert", "no_fit")
LOST = ("queue_full", "not_written")
ENDS = ("done", "failed")
"""Of fits, and of looks at the library's folder."""


class Metrics:
    """The metrics of one app; `render` is the body of `/metrics`."""

    def __init__(self, expert_labels: int = 64) -> None:
        self.expert_labels = expert_labels
        self.registry = r = CollectorRegistry()
        p = "sailplane_"
        self.requests = Counter(
            f"{p}requests", "Requests answered.", ["route", "status"], registry=r
        )
        self.errors = Counter(f"{p}errors", "Errors answered.", ["route", "code"], registry=r)
        self.by_key = Counter(
            BY_KEY, "Requests answered, by the name of their key.", ["key", "status"],
            registry=r,
        )  # fmt: skip
        self.in_flight = Gauge(f"{p}requests_in_flight", "Requests being answered.", registry=r)
        self.seconds = Histogram(
            f"{p}request_seconds", "From request to the end of the response.", ["route"],
            buckets=(*MILLISECONDS, *MINUTES), registry=r,
        )  # fmt: skip
        self.ready = Gauge(f"{p}ready", "Whether new requests are taken.", registry=r)
        self.build = Gauge(
            f"{p}build_info", "What is served, and by what.",
            ["version", "backbone", "embedder", "device", "dtype"], registry=r,
        )  # fmt: skip
        self._engine(p, r)
        self._routing(p, r)
        self._library(p, r)
        self._named: set[str] = set()
        self.usage = Usage()
        for counter, values in (
            (self.unlogged, LOST), (self.fits, ENDS), (self.looks, ENDS),
            (self.fallbacks, FALLBACKS), (self.modes, get_args(Mode)),
        ):  # fmt: skip
            for value in values:  # from 0 on: Prometheus sees no rise to the first sample
                counter.labels(value)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=r)

    def _engine(self, p: str, r: CollectorRegistry) -> None:
        self.depth = Gauge(f"{p}queue_samples", "Samples waiting for the engine.", registry=r)
        self.limit = Gauge(f"{p}queue_limit_samples", "Samples that may wait.", registry=r)
        self.waited = Histogram(
            f"{p}queue_wait_seconds", "From arrival to a batch.",
            buckets=(*MICROSECONDS, *MILLISECONDS), registry=r,
        )  # fmt: skip
        self.batch_size = Histogram(
            f"{p}batch_samples", "Samples per batch.", buckets=SIZES, registry=r
        )
        self.batch_seconds = Histogram(
            f"{p}batch_seconds", "Engine time per batch.", buckets=MILLISECONDS, registry=r
        )
        self.stage = Histogram(
            f"{p}stage_seconds", "Time per stage of a batch.", ["stage"],
            buckets=(*MICROSECONDS, *MILLISECONDS), registry=r,
        )  # fmt: skip
        self.busy = Counter(
            f"{p}engine_busy_seconds", "Time that the engine computed, of all sorts of work.",
            registry=r,
        )  # fmt: skip
        self.tokens = Counter(f"{p}input_tokens", "Tokens of inputs answered.", registry=r)
        self.failed = Counter(
            f"{p}samples_failed", "Samples the engine refused.", ["error"], registry=r
        )

    def _library(self, p: str, r: CollectorRegistry) -> None:
        self.load = Histogram(
            f"{p}expert_load_seconds", "Time to bring an expert to a tier.", ["tier"],
            buckets=MILLISECONDS, registry=r,
        )  # fmt: skip
        self.unlogged = Counter(
            f"{p}routing_log_lost", "Times lines of the routing log were lost.", ["reason"],
            registry=r,
        )  # fmt: skip
        self.fits = Counter(
            f"{p}fits", "Background fits of experts, by how they ended.", ["state"], registry=r
        )
        self.looks = Counter(
            f"{p}library_looks", "Looks at the library's folder, by how they ended.", ["state"],
            registry=r,
        )  # fmt: skip

    def _routing(self, p: str, r: CollectorRegistry) -> None:
        self.selected = Counter(
            f"{p}experts_selected", "Times an expert was selected.", ["expert"], registry=r
        )
        self.top_score = Histogram(
            f"{p}routing_top_score", "Best score of the request router.",
            buckets=SCORES, registry=r,
        )  # fmt: skip
        self.confidence = Histogram(
            f"{p}routing_confidence", "How sure the policy is of the first expert, if it says so.",
            buckets=CONFIDENCES, registry=r,
        )  # fmt: skip
        self.entropy = Histogram(
            f"{p}routing_entropy", "Entropy of the selection's weights, in nats.",
            buckets=(0.01, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0), registry=r,
        )  # fmt: skip
        self.modes = Counter(f"{p}routing_mode", "Selections by mode.", ["mode"], registry=r)
        self.fallbacks = Counter(
            f"{p}routing_fallback", "Fallbacks by reason.", ["reason"], registry=r
        )
        self.writers = Counter(
            f"{p}instructions", "Instructions, by who wrote them.", ["writer"], registry=r
        )

    def request(self, route: str, status: int, seconds: float, code: str | None) -> None:
        """Count one answered request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if code is not None:
            self.errors.labels(route, code).inc()

    def keyed(self, key: str, status: int) -> None:
        """Count one answered request of a key."""
        self.by_key.labels(key, str(status)).inc()

    def batch(
        self, seconds: float, results: Sequence[Outcome | Exception], again: Collection[int] = ()
    ) -> None:
        """Count one batch of the engine and what it decided for each sample.

        Args:
            again: places of samples that tell more of one that has been counted: their time counts,
                and neither their inputs nor what was selected for them.
        """
        self.batch_size.observe(len(results))
        self.batch_seconds.observe(seconds)
        self.busy.inc(seconds)
        done = [result for result in results if isinstance(result, Outcome)]
        if len(done) < len(results):
            for error in (r for r in results if not isinstance(r, Outcome)):
                self.failed.labels(type(error).__name__).inc()
        if done:  # the clock is the batch's; only the writing of an instruction is a sample's own
            for stage, spent in done[0].trace.milliseconds.items():
                self.stage.labels(stage).observe(spent / 1000)
        new = [r for i, r in enumerate(results) if isinstance(r, Outcome) and i not in again]
        self.tokens.inc(sum(outcome.tokens for outcome in new))
        for outcome in new:
            self.trace(outcome.trace)

    def trace(self, trace: Trace) -> None:
        """Count what one sample's routing decided, and what it fell back to."""
        selection = trace.selection
        self.modes.labels(selection.mode).inc()
        self.writers.labels(trace.writer).inc()
        if trace.top_score is not None:
            self.top_score.observe(trace.top_score)
        if trace.confidence is not None:
            self.confidence.observe(trace.confidence)
        if selection.experts:
            self.entropy.observe(entropy([e.weight for e in selection.experts]))
        self.usage.note(selection.refs)
        for expert in selection.experts:
            self.selected.labels(self.expert_label(expert.id)).inc()
        for reason in fallbacks(trace):
            self.fallbacks.labels(reason).inc()

    def expert_label(self, id: str) -> str:
        """The id, or `other` once enough ids have been seen."""
        if id not in self._named:
            if len(self._named) >= self.expert_labels:
                return OTHER
            self._named.add(id)
        return id

    def loaded(self, tier: Tier, seconds: float) -> None:
        """Count one load of an expert; fits `on_load` of `Tiers`."""
        self.load.labels(tier).observe(seconds)

    def unlog(self, reason: str) -> None:
        """Count lines of the routing log that were lost; fits `RoutingLog`'s `on_lost`."""
        self.unlogged.labels(reason).inc()

    def fitted(self, state: str) -> None:
        """Count one fit that ended."""
        self.fits.labels(state).inc()

    def looked(self, state: str) -> None:
        """Count one look at the library's folder: it is `done`, or `failed`."""
        self.looks.labels(state).inc()

    def describe(self, version: str, engine: Engine) -> None:
        """Say what is served, and by which version."""
        backbone, dtype = engine.backbone, str(engine.backbone.dtype).removeprefix("torch.")
        self.build.labels(
            version, backbone.id, engine.embedder.id, backbone.device.type, dtype
        ).set(1)

    def watch_engine(self, engine: Engine) -> None:
        """Read at scrape time what the library holds, and what tiers and feature stores count."""
        stores = {"words": engine.words, "inputs": engine.inputs, "statements": engine.said}
        apart = {} if engine.asked is engine.words else {"embedder": engine.asked}
        for collector in (
            LibraryCollector(lambda: engine.library.snapshot),
            TierCollector(lambda: engine.tiers.stats),
            FeatureCollector({**stores, **apart}),
        ):
            self.registry.register(collector)

    def watch_generation(self, loop: GenerationLoop) -> None:
        """Count what the loop writes, and read its state at scrape time."""
        loop.on_step = GenerationMetrics(self.registry, self.busy)
        self.registry.register(LoopCollector(loop))

    def watch_queue(self, depth: Callable[[], int], limit: int) -> None:
        """Read the queue's depth at scrape time."""
        self.depth.set_function(depth)
        self.limit.set(limit)

    def watch_ready(self, ready: Callable[[], bool]) -> None:
        """Read at scrape time whether new requests are taken."""
        self.ready.set_function(ready)

    def render(self, shown: Container[str] | None = None) -> bytes:
        """The metrics in Prometheus' text format.

        Args:
            shown: the experts that may be named; all others count as `other`. None: all may.
        """
        if shown is None:
            return generate_latest(self.registry)
        told = CollectorRegistry()
        told.register(FoldedCollector(self.registry, shown))
        return generate_latest(told)


def entropy(weights: Sequence[float]) -> float:
    """Entropy in nats of weights, scaled to sum to 1."""
    total = sum(weights)
    shares = [w / total for w in weights if w > 0]
    return -sum(s * math.log(s) for s in shares)


def fallbacks(trace: Trace) -> list[str]:
    """The codes of what one sample fell back to: a closed list, never text of a request."""
    took = {
        "instruction_writer": trace.writer_note is not None,
        "narrowed": trace.narrowed,
        "truncated": bool(trace.truncated),
        "load_failed": bool(trace.replaced),
    }
    codes = [reason for reason, fell in took.items() if fell]
    return [*codes, trace.fallback] if trace.fallback else codes
