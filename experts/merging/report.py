"""How a merged expert lies to those it was made of: the distance report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experts.merging.deltas import inner
from experts.weights import ExpertWeights, SiteTensors


@dataclass(frozen=True)
class Likeness:
    """One source beside the merged expert, over all sites together.

    Attributes:
        source: its name. cosine: of its delta and the merged one; 0 where either is zero.
        norm: of the merged delta, in norms of its own; None where that is zero.
    """

    source: str
    cosine: float
    norm: float | None


def likenesses(
    sources: Sequence[str], experts: Sequence[ExpertWeights], merged: ExpertWeights
) -> tuple[Likeness, ...]:
    """Each source beside what was made of them; kinds without deltas compare parameters."""
    size = product(merged, merged) ** 0.5
    found: list[Likeness] = []
    for source, expert in zip(sources, experts, strict=True):
        own = product(expert, expert) ** 0.5
        cosine = product(expert, merged) / (own * size) if own * size else 0.0
        found.append(Likeness(source, cosine, size / own if own else None))
    return tuple(found)


def product(one: ExpertWeights, other: ExpertWeights) -> float:
    """Inner product of two experts of one kind over the sites they share."""
    at_site = inner if one.kind == "lora" else _parameters
    shared = [site for site in one.sites if site in other.sites]
    return sum(at_site(one.sites[site], other.sites[site]) for site in shared)


def _parameters(one: SiteTensors, other: SiteTensors) -> float:
    return sum(float((t.double() * other[part].double()).sum()) for part, t in one.items())
