"""The metrics as a limited caller may see them: they name no expert and no key of others."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample as MetricSample

from server.observability.collectors import LIBRARY
from server.observability.generation import ADAPTER_LISTS

BY_KEY = "sailplane_key_requests"
"""The metric that names keys."""
OTHER = "other"
"""The label of all experts that are not named."""


class FoldedCollector(Collector):
    """A registry's metrics in which some experts only are named; all others count as `other`."""

    def __init__(self, registry: CollectorRegistry, shown: Container[str]) -> None:
        self._registry, self._shown = registry, shown

    def collect(self) -> Iterator[Metric]:
        """The metrics now."""
        for metric in self._registry.collect():
            if metric.name.startswith((LIBRARY, BY_KEY)):
                continue  # what others put there, or ask, is not for a limited caller to see
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
