"""Figures of the live view: what `/metrics` says now, and what came to pass between two looks.

Reads Prometheus' text format with its own parser. Pure; knows nothing of pages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
PREFIX = "sailplane_"


@dataclass(frozen=True)
class Look:
    """All numbers of the server at one time.

    Attributes:
        at: seconds, on any clock that goes on. values: by name without the prefix, and labels.
    """

    at: float
    values: Mapping[tuple[str, Labels], float]

    @classmethod
    def of(cls, at: float, text: str) -> Look:
        """From the text of `/metrics`."""
        values = {
            (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith(PREFIX)
        }
        return cls(at, values)

    def value(self, name: str, **labels: str) -> float:
        """The sum of a name's values whose labels are these, and any others."""
        return sum(self._each(name, labels))

    def without(self, label: str, values: Collection[str]) -> Look:
        """The same, but for numbers whose label has one of these values."""
        kept = {key: v for key, v in self.values.items() if dict(key[1]).get(label) not in values}
        return Look(self.at, kept)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The sums of a name's values by one label."""
        sums: dict[str, float] = {}
        for (found, labels), value in self.values.items():
            if found == name and (kind := dict(labels).get(label)) is not None:
                sums[kind] = sums.get(kind, 0.0) + value
        return sums

    def _each(self, name: str, wanted: Mapping[str, str]) -> Iterator[float]:
        for (found, labels), value in self.values.items():
            if found == name and wanted.items() <= dict(labels).items():
                yield value


@dataclass(frozen=True)
class Span:
    """What came to pass between two looks. A server that restarted counts from nothing."""

    before: Look
    after: Look

    @property
    def seconds(self) -> float:
        """Between them."""
        return max(1e-9, self.after.at - self.before.at)

    def rate(self, name: str, **labels: str) -> float:
        """How much a counter rose in a second."""
        return self.rise(name, **labels) / self.seconds

    def rise(self, name: str, **labels: str) -> float:
        """How much a counter rose."""
        after = self.after.value(name, **labels)
        risen = after - self.before.value(name, **labels)
        return risen if risen >= 0 else after

    def rises(self, name: str, label: str) -> dict[str, float]:
        """How much each rose that did, by one label."""
        after, before = self.after.by(name, label), self.before.by(name, label)
        risen = {k: v - before.get(k, 0.0) for k, v in after.items()}
        return {k: v if v >= 0 else after[k] for k, v in risen.items() if v}

    def mean(self, name: str, **labels: str) -> float | None:
        """The mean of what a histogram counted; None where it counted nothing."""
        count = self.rise(f"{name}_count", **labels)
        return self.rise(f"{name}_sum", **labels) / count if count else None

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """Below what so many of a histogram's counts lie, within its buckets.

        As Prometheus' `histogram_quantile` has it; None where it counted nothing.
        """
        bounds = sorted(self._buckets(name, labels).items())
        if not bounds or not bounds[-1][1]:
            return None
        wanted, low, below = share * bounds[-1][1], 0.0, 0.0
        for bound, count in bounds:
            if count >= wanted:
                if bound == float("inf"):
                    return low
                inside = count - below
                return low + (bound - low) * ((wanted - below) / inside if inside else 1.0)
            low, below = bound, count
        return low

    def _buckets(self, name: str, labels: Mapping[str, str]) -> dict[float, float]:
        name = f"{name}_bucket"
        bounds = {bound for look in (self.after,) for bound in look.by(name, "le")}
        return {float(b): self.rise(name, le=b, **labels) for b in bounds}


@dataclass
class History:
    """The last looks at a server, oldest first.

    Attributes:
        most: how many are kept.
    """

    most: int = 120
    looks: list[Look] = field(default_factory=list)

    def add(self, look: Look) -> None:
        """Add one."""
        self.looks = [*self.looks, look][-self.most :]

    def spans(self) -> Iterable[Span]:
        """Between each two that follow one another."""
        return (Span(a, b) for a, b in zip(self.looks, self.looks[1:], strict=False))

    @property
    def last(self) -> Span | None:
        """The newest span, once there are two looks."""
        return Span(*self.looks[-2:]) if len(self.looks) > 1 else None
