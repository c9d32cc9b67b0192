"""Figures of the live view: what `/metrics` says now, and what came to pass between two looks.

Reads Prometheus' text format with its own parser. Pure; knows nothing of pages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]
Samples = Mapping[str, list[tuple[Labels, float]]]
PREFIX = "sailplane_"
STAGES = ("instruction", "embed", "select", "load", "forward")
SHARES = (0.5, 0.9, 0.99)
MS, MB = 1e3, 2**20


@dataclass(frozen=True)
class Look:
    """All numbers of the server at one time.

    Attributes:
        at: seconds, on any clock that goes on. samples: by name without the prefix.
    """

    at: float
    samples: Samples

    @classmethod
    def of(cls, at: float, text: str, without: Collection[str] = ()) -> Look:
        """From the text of `/metrics`.

        Args:
            without: routes whose numbers are left out.
        """
        found: dict[str, list[tuple[Labels, float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(PREFIX) and sample.labels.get("route") not in without:
                    name = sample.name.removeprefix(PREFIX)
                    found.setdefault(name, []).append((sample.labels, sample.value))
        return cls(at, found)

    def value(self, name: str, **labels: str) -> float:
        """The sum of a name's values whose labels are these, and any others."""
        return sum(value for _, value in self._each(name, labels))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The sums of a name's values by one label."""
        sums: dict[str, float] = {}
        for told, value in self._each(name, labels):
            if (kind := told.get(label)) is not None:
                sums[kind] = sums.get(kind, 0.0) + value
        return sums

    def _each(self, name: str, wanted: Labels) -> Iterator[tuple[Labels, float]]:
        for labels, value in self.samples.get(name, ()):
            if wanted.items() <= labels.items():
                yield labels, value


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

    def rises(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """How much each rose that did, by one label."""
        after, before = (look.by(name, label, **labels) for look in (self.after, self.before))
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
        after = self.after.by(f"{name}_bucket", "le", **labels)
        risen = self.rises(f"{name}_bucket", "le", **labels)
        bounds = sorted((float(bound), risen.get(bound, 0.0)) for bound in after)
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


@dataclass(frozen=True)
class Figures:
    """The numbers that the live view shows of one span; None where nothing was counted.

    Attributes:
        at: when it ended. cards: the numbers of now, as they are read. charts: the lines of each
            chart, by name.
    """

    at: float
    cards: Mapping[str, str]
    charts: Mapping[str, Mapping[str, float | None]]


def figures(span: Span, *, writes: bool = False) -> Figures:
    """What a span shows; `writes`: of a backbone that does."""
    rate, look = span.rate, span.after
    latency = {f"p{q * 100:.0f}": _ms(span.quantile("request_seconds", q)) for q in SHARES}
    charts: dict[str, Mapping[str, float | None]] = {
        "rates": {
            "requests": rate("request_seconds_count"), "samples": rate("batch_samples_sum"),
        },
        "latency": latency,
        "queue": {
            "waiting": look.value("queue_samples"), "in a batch (mean)": span.mean("batch_samples"),
        },
        "stages": {s: _ms(span.mean("stage_seconds", stage=s)) for s in STAGES},
        "experts": _rates(span, "experts_selected_total", "expert"),
        "fallbacks": _rates(span, "routing_fallback_total", "reason"),
        "tiers": {t: b / MB for t, b in look.by("expert_cache_bytes", "tier").items()},
    }  # fmt: skip
    if writes:
        charts["tokens"] = {"tokens written": rate("generated_tokens_total")}
        charts["first"] = {
            f"p{q * 100:.0f}": _ms(span.quantile("time_to_first_token_seconds", q)) for q in SHARES
        }
    return Figures(look.at, _cards(span, latency), charts)


def _cards(span: Span, latency: Mapping[str, float | None]) -> dict[str, str]:
    hits, asked = (span.rise(f"expert_cache_{name}_total") for name in ("hits", "lookups"))
    return {
        "requests/s": f"{span.rate('request_seconds_count'):.1f}",
        "samples/s": f"{span.rate('batch_samples_sum'):.1f}",
        "p50": _told(latency["p50"]), "p99": _told(latency["p99"]),
        "in flight": f"{max(0.0, span.after.value('requests_in_flight') - 1):.0f}",  # but this one
        "queue": f"{span.after.value('queue_samples'):.0f}",
        "engine busy": f"{span.rate('engine_busy_seconds_total'):.0%}",
        "experts found in memory": f"{hits / asked:.0%}" if asked else "-",
    }  # fmt: skip


def _rates(span: Span, name: str, label: str) -> dict[str, float | None]:
    return {key: rise / span.seconds for key, rise in span.rises(name, label).items()}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * MS


def _told(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.0f} ms"


APART = 10.0
"""Seconds between two looks beyond which their mean tells nothing of now."""


@dataclass
class History:
    """The last figures of a server, oldest first: of each span its numbers, and the last look.

    Attributes:
        most, longest: how many are kept, and for how many seconds. writes: see `figures`.
    """

    most: int = 120
    longest: float = 300.0
    writes: bool = False
    kept: list[Figures] = field(default_factory=list)
    _last: Look | None = None

    def add(self, look: Look) -> Figures | None:
        """Add a look; what came to pass since the last one, unless that is long ago."""
        last, self._last = self._last, look
        self.kept = [one for one in self.kept if one.at > look.at - self.longest]
        if last is None or look.at - last.at > APART:
            return None
        found = figures(Span(last, look), writes=self.writes)
        self.kept = [*self.kept, found][-self.most :]
        return found

    def lines(self, chart: str, most: int = 6) -> dict[str, list[tuple[float, float | None]]]:
        """The lines of a chart: (seconds before the last, value); the greatest, if there are many.

        What a span did not count is 0 where others did, and a gap where it has no mean.
        """
        if not self.kept:
            return {}
        now = self.kept[-1].at
        totals: dict[str, float] = {}
        for found in self.kept:
            for name, value in found.charts.get(chart, {}).items():
                totals[name] = totals.get(name, 0.0) + (value or 0.0)
        best = sorted(totals, key=lambda name: -totals[name])[:most]
        return {
            name: [(f.at - now, f.charts.get(chart, {}).get(name, 0.0)) for f in self.kept]
            for name in totals if name in best
        }  # fmt: skip
