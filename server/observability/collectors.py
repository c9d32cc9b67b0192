"""What is read at scrape time: the library, the memory tiers and the feature stores as metrics.

Each collector is handed what it reads; none keeps a count of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from experts.cache import CacheStats
from experts.snapshot import Snapshot
from experts.tiers import Tier

LIBRARY = "sailplane_library"
"""How the names of what is told of the whole library begin."""


class TierCollector(Collector):
    """The counters of the memory tiers as metrics."""

    def __init__(self, stats: Callable[[], Mapping[Tier, CacheStats]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """The counters now."""
        stats = self._stats()
        for name in ("lookups", "hits", "evictions", "failures"):
            counter = CounterMetricFamily(
                f"sailplane_expert_cache_{name}", f"Cache {name}.", labels=["tier"]
            )
            for tier, counts in stats.items():
                counter.add_metric([tier], getattr(counts, name))
            yield counter
        for name, value, text in (
            ("bytes", "bytes", "Held bytes."),
            ("experts", "experts", "Held experts."),
            ("limit_bytes", "budget", "Bytes that may be held."),
        ):
            gauge = GaugeMetricFamily(f"sailplane_expert_cache_{name}", text, labels=["tier"])
            for tier, counts in stats.items():
                gauge.add_metric([tier], getattr(counts, value))
            yield gauge


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


class LibraryCollector(Collector):
    """What lies in the library, and the name of the state it is in."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """The library now."""
        snapshot = self._snapshot()
        experts = GaugeMetricFamily(
            f"{LIBRARY}_experts", "Experts in the library, by whether they can be served.",
            labels=["state"],
        )  # fmt: skip
        experts.add_metric(["served"], len(snapshot.entries))
        experts.add_metric(["bad"], len(snapshot.bad))
        yield experts
        info = GaugeMetricFamily(
            f"{LIBRARY}_info", "The library's generation: equal where libraries are.",
            labels=["generation"],
        )  # fmt: skip
        info.add_metric([snapshot.generation], 1)
        yield info
