"""Metrics of several replicas as one text: each sample says whose it is. Knows no metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LABEL = "replica"


def merged(texts: Mapping[str, str]) -> bytes:
    """One text of several, by replica's name."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Merged(texts))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        """Each family once, with the samples of all."""
        families: dict[str, Metric] = {}
        for replica, text in self._texts.items():
            for family in text_string_to_metric_families(text):
                empty = Metric(family.name, family.documentation, family.type)
                kept = families.setdefault(family.name, empty)
                kept.samples += [
                    sample._replace(labels={**sample.labels, LABEL: replica})
                    for sample in family.samples
                ]
        return families.values()
