"""Every Prometheus metric of the server, in one registry per app.

Labels never carry text of a request. Expert ids are labels for the first `expert_labels` experts
seen; all others count as `other`, so that a large library cannot swell a scrape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample as MetricSample

from experts.cache import CacheStats
from experts.tiers import Tier
from server.engine.generation.loop import GenerationLoop
from server.engine.messages import Outcome, Trace
from server.observability.generation import ADAPTER_LISTS, GenerationMetrics, LoopCollector

MILLISECONDS = (.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30)  # fmt: skip
MINUTES = (60, 120, 300, 600)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BY_KEY = "sailplane_key_requests"
OTHER = "other"
"""The label of all experts that are not named."""
SCORES = (-0.75, -0.5, -0.25, 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1)
"""Of probabilities and of cosines, which may be negative: so Prometheus keeps no sum of them."""
CONFIDENCES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1)
"""Fine where they crowd, and with an edge at 0.5, below which no expert surely fits."""


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
        self.depth = Gauge(f"{p}queue_samples", "Samples waiting for the engine.", registry=r)
        self.waited = Histogram(
            f"{p}queue_wait_seconds", "From arrival to a batch.", buckets=MILLISECONDS, registry=r
        )
        self.batch_size = Histogram(
            f"{p}batch_samples", "Samples per batch.", buckets=SIZES, registry=r
        )
        self.batch_seconds = Histogram(
            f"{p}batch_seconds", "Engine time per batch.", buckets=MILLISECONDS, registry=r
        )
        self.stage = Histogram(
            f"{p}stage_seconds", "Time per stage of a batch.", ["stage"],
            buckets=MILLISECONDS, registry=r,
        )  # fmt: skip
        self._routing(p, r)
        self.tokens = Counter(f"{p}input_tokens", "Tokens of inputs answered.", registry=r)
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
        self._named: set[str] = set()

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
        self.failed = Counter(
            f"{p}samples_failed", "Samples the engine refused.", ["error"], registry=r
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
        if trace.candidates:
            self.top_score.observe(max(c.score for c in trace.candidates))
        if trace.confidence is not None:
            self.confidence.observe(trace.confidence)
        if selection.experts:
            self.entropy.observe(entropy([e.weight for e in selection.experts]))
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

    def watch_tiers(self, stats: Callable[[], Mapping[Tier, CacheStats]]) -> None:
        """Read the tiers' counters at scrape time."""
        self.registry.register(TierCollector(stats))

    def unlog(self, reason: str) -> None:
        """Count lines of the routing log that were lost; fits `RoutingLog`'s `on_lost`."""
        self.unlogged.labels(reason).inc()

    def fitted(self, state: str) -> None:
        """Count one fit that ended."""
        self.fits.labels(state).inc()

    def watch_features(self, stores: Mapping[str, FeatureCounts]) -> None:
        """Read the feature stores' counters at scrape time."""
        self.registry.register(FeatureCollector(stores))

    def watch_generation(self, loop: GenerationLoop) -> None:
        """Count what the loop writes, and read its state at scrape time."""
        loop.on_step = GenerationMetrics(self.registry)
        self.registry.register(LoopCollector(loop))

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Read the queue's depth at scrape time."""
        self.depth.set_function(depth)

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


class TierCollector(Collector):
    """The counters of the memory tiers as metrics."""

    def __init__(self, stats: Callable[[], Mapping[Tier, CacheStats]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """The counters now."""
        stats = self._stats()
        for name in ("lookups", "hits", "evictions"):
            counter = CounterMetricFamily(
                f"sailplane_expert_cache_{name}", f"Cache {name}.", labels=["tier"]
            )
            for tier, counts in stats.items():
                counter.add_metric([tier], getattr(counts, name))
            yield counter
        for name in ("bytes", "experts"):
            gauge = GaugeMetricFamily(
                f"sailplane_expert_cache_{name}", f"Held {name}.", labels=["tier"]
            )
            for tier, counts in stats.items():
                gauge.add_metric([tier], getattr(counts, name))
            yield gauge


class FoldedCollector(Collector):
    """A registry's metrics in which some experts only are named; all others count as `other`.

    Which other keys there are, and how much they ask, is not told at all.
    """

    def __init__(self, registry: CollectorRegistry, shown: Container[str]) -> None:
        self._registry, self._shown = registry, shown

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        for metric in self._registry.collect():
            if metric.name != BY_KEY:
                metric.samples = self._folded(metric.samples)
                yield metric

    def _folded(self, samples: Sequence[MetricSample]) -> list[MetricSample]:
        """The samples, those of experts that are not named added up."""
        folded: dict[tuple[str, tuple[tuple[str, str], ...]], MetricSample] = {}
        for sample in samples:
            if "expert" in sample.labels and sample.labels["expert"] not in self._shown:
                sample = sample._replace(labels={**sample.labels, "expert": OTHER})
            for name in ADAPTER_LISTS:
                if name in sample.labels:
                    kept = [id for id in sample.labels[name].split(",") if id in self._shown]
                    sample = sample._replace(labels={**sample.labels, name: ",".join(kept)})
            key = (sample.name, tuple(sorted(sample.labels.items())))
            if (before := folded.get(key)) is not None:  # `_created` is when the first began
                join = min if sample.name.endswith("_created") else sum
                sample = sample._replace(value=join((before.value, sample.value)))
            folded[key] = sample
        return list(folded.values())


class FeatureCounts(Protocol):
    """What a feature store counts."""

    lookups: int
    hits: int


class FeatureCollector(Collector):
    """The feature stores' own counters as metrics, by what they hold vectors of."""

    def __init__(self, stores: Mapping[str, FeatureCounts]) -> None:
        self._stores = stores

    def collect(self) -> Iterator[Metric]:
        """The counters now."""
        for name in ("lookups", "hits"):
            counter = CounterMetricFamily(
                f"sailplane_feature_{name}", f"Feature store {name}.", labels=["store"]
            )
            for store, counts in self._stores.items():
                counter.add_metric([store], getattr(counts, name))
            yield counter


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
