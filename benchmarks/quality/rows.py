"""The rows of the comparison: each a name and how it answers. A row may need what is not made yet.

A row is resolved to ways: what the engine is asked. The oracle has several and takes the best.
Knows no accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from benchmarks.quality.ablations import NO_HEDGE, NO_METRIC
from routers.presets import DEFAULT, PRESETS

Group = Literal["comparison", "ablation", "curve"]


@dataclass(frozen=True)
class Routed:
    """Asks for a preset, with at most `top_k` experts where that is given."""

    preset: str
    top_k: int | None = None
    mode: Literal["merge", "token"] | None = None

    @property
    def name(self) -> str:
        """Names it among the ways."""
        parts = [f"k={self.top_k}"] if self.top_k else []
        return ",".join([self.preset, *parts, *([self.mode] if self.mode else [])])


@dataclass(frozen=True)
class Forced:
    """Names an expert."""

    expert: str

    @property
    def name(self) -> str:
        """Names it among the ways."""
        return f"expert={self.expert}"


Way = Routed | Forced


@dataclass(frozen=True)
class Titled:
    """What every row has: a name, and a title for people."""

    name: str
    title: str
    group: Group = field(default="comparison", kw_only=True)


@dataclass(frozen=True)
class RouterRow(Titled):
    """A preset, by name."""

    way: Routed


@dataclass(frozen=True)
class ExpertRow(Titled):
    """One expert for all tasks: several merged, or trained on all of them."""

    expert: str


@dataclass(frozen=True)
class BestSingleRow(Titled):
    """The task's expert that is best for all tasks together, chosen on the data set aside."""


@dataclass(frozen=True)
class PerTaskRow(Titled):
    """An expert made for each task from a few of its examples: `<prefix>.<task>`."""

    prefix: str


@dataclass(frozen=True)
class OracleRow(Titled):
    """Held in: the task's own expert. Else: the best expert on these very examples, a bound."""


Row = RouterRow | ExpertRow | BestSingleRow | PerTaskRow | OracleRow


def chooses(row: Row) -> bool:
    """Whether a row prefers some experts for an input: `uniform` and forced experts do not."""
    if not isinstance(row, RouterRow):
        return False
    preset = PRESETS.get(row.way.preset)
    return preset is None or preset.request not in (None, "uniform")


def _router(name: str, title: str, preset: str) -> RouterRow:
    return RouterRow(name, title, Routed(preset))


BARE, DAM, ORACLE, MULTITASK, DEFAULT_ROW = "base", "dam", "oracle", "multitask", "default"

COMPARISON: tuple[Row, ...] = (
    _router(BARE, "bare backbone", "base"),
    BestSingleRow("single", "best single expert"),
    ExpertRow("average", "average", "average"),
    ExpertRow("ties", "TIES", "ties"),
    ExpertRow("arithmetic", "task arithmetic", "arithmetic"),
    _router("retrieval", "retrieval top-1", "retrieval"),
    _router("centroid", "centroid top-1", "centroid"),
    _router("knn", "kNN over training embeddings", "neighbours"),
    _router(DAM, "DAM", "dam"),
    _router("arrow", "Arrow", "arrow"),
    _router("phatgoose", "PHATGOOSE", "phatgoose"),
    PerTaskRow("lorahub", "LoraHub", "lorahub"),
    _router("glider-3", "GLIDER, scale 3", "glider-3"),
    _router("glider-100", "GLIDER, scale 100", "glider-100"),
    _router(DEFAULT_ROW, "Sailplane's default", DEFAULT),
    ExpertRow(MULTITASK, "multitask", "multitask"),
    OracleRow(ORACLE, "oracle"),
)

ABLATIONS: tuple[Row, ...] = (
    RouterRow("no-metric", "inputs by centroids", Routed(NO_METRIC), group="ablation"),
    RouterRow("no-hedge", "no hedging", Routed(NO_HEDGE), group="ablation"),
    RouterRow("one-expert", "no merging", Routed(DEFAULT, 1), group="ablation"),
    RouterRow("tokens", "tokens choose too", Routed(DEFAULT, mode="token"), group="ablation"),
)
"""Variants of the default: one idea taken out each, and one put in."""

COUNTS = (1, 2, 3, 4, 8)
CURVES = {"default": DEFAULT, "DAM": "dam", "equal weights": "retrieval"}
"""Rows of the picture of accuracy against K: how the K best are chosen and weighed, by preset."""
CURVE: tuple[RouterRow, ...] = tuple(
    RouterRow(f"{preset}-k{k}", f"{title}, {k} merged", Routed(preset, k, "merge"), group="curve")
    for title, preset in CURVES.items()
    for k in COUNTS
)
