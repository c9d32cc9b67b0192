"""Plan -> validate -> apply: a merge is checked as a whole before any tensor is computed with.

`make_plan` needs no tensors, so that a wrong wish fails before anything is loaded. Knows neither
files nor libraries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from experts.errors import CorruptExpert, MixError
from experts.merging.deltas import truncate
from experts.merging.report import product
from experts.merging.rules import RULES, Rule
from experts.packed import all_finite
from experts.weights import ExpertWeights


@dataclass(frozen=True)
class Plan:
    """A merge that is wanted: every default filled in.

    Attributes:
        sources: names of the experts. weights: one each; empty for a rule that takes none.
        rank: truncate the result to this rank at every site; None keeps it exact.
    """

    rule: Rule
    sources: tuple[str, ...]
    weights: tuple[float, ...]
    parameters: Mapping[str, float]
    rank: int | None = None


@dataclass(frozen=True, eq=False)
class Merged:
    """What became of a plan.

    Attributes:
        expert: the merged expert.
        error: what truncation lost, as Frobenius norm relative to the exact delta.
    """

    expert: ExpertWeights
    error: float = 0.0


def make_plan(
    rule: str,
    sources: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    parameters: Mapping[str, float] | None = None,
    rank: int | None = None,
) -> Plan:
    """A plan from what the caller says, its defaults filled in.

    Args:
        rule: a name in `RULES`. sources: distinct names of experts. weights: one per source.

    Raises:
        MixError: the rule does not exist, or does not take that.
    """
    if rule not in RULES:
        raise MixError(f"There is no merge rule {rule!r}; these are: {', '.join(RULES)}.")
    if not sources or len(set(sources)) != len(sources):
        raise MixError("A merge needs one expert at least, and none twice.", experts=list(sources))
    if rank is not None and rank < 1:
        raise MixError(f"A rank is 1 at least, not {rank}.")
    row = RULES[rule]
    told = _parameters(row, parameters or {})
    return Plan(row, tuple(sources), _weights(row, len(sources), weights), told, rank)


def validate(plan: Plan, experts: Sequence[ExpertWeights]) -> None:
    """Check that these experts, one per source, can be merged as planned.

    Raises:
        MixError: they are of the wrong kind or of several merge groups, or their ranks differ
            where they must not. CorruptExpert: a tensor holds NaN or infinity.
    """
    rule = plan.rule
    if len(experts) != len(plan.sources):
        raise MixError(f"The plan names {len(plan.sources)} experts, and {len(experts)} came.")
    named = dict(zip(plan.sources, experts, strict=True))
    if wrong := [n for n, e in named.items() if e.kind not in rule.kinds]:
        kinds = " or ".join(rule.kinds)
        raise MixError(f"Rule {rule.name} merges experts of kind {kinds}.", experts=wrong)
    if len({e.group for e in experts}) > 1:
        raise MixError("Experts of different merge groups cannot be merged.", experts=list(named))
    if plan.rank is not None and experts[0].kind != "lora":
        raise MixError(f"Experts of kind {experts[0].kind} have no rank to truncate to.")
    if rule.equal_ranks and (uneven := _uneven(experts)):
        raise MixError(
            f"Rule {rule.name} merges LoRA of equal ranks only; they differ at {uneven[0]}.",
            sites=uneven,
        )
    if bad := [n for n, e in named.items() if not all(map(all_finite, e.tensors()))]:
        raise CorruptExpert("Tensors hold NaN or infinity.", experts=bad)


def apply(plan: Plan, experts: Sequence[ExpertWeights], id: str) -> Merged:
    """Merge experts that `validate` let pass into expert `id`; they stay as they are."""
    first = experts[0]
    sites = plan.rule.merge(experts, plan.weights, plan.parameters)
    exact = ExpertWeights(id, first.kind, first.group, sites)
    if plan.rank is None:
        return Merged(exact)
    cut = {site: truncate(factors, plan.rank) for site, factors in sites.items()}
    lost, whole = sum(gone for _, gone in cut.values()), product(exact, exact)
    kept = replace(exact, sites={site: factors for site, (factors, _) in cut.items()})
    return Merged(kept, (lost / whole) ** 0.5 if whole else 0.0)


def merge(
    rule: str,
    experts: Sequence[ExpertWeights],
    id: str = "merged",
    *,
    weights: Sequence[float] | None = None,
    parameters: Mapping[str, float] | None = None,
    rank: int | None = None,
) -> Merged:
    """Plan, validate and apply at once, for experts of different ids.

    Raises:
        MixError, CorruptExpert: as `make_plan` and `validate`.
    """
    ids = [e.id for e in experts]
    plan = make_plan(rule, ids, weights=weights, parameters=parameters, rank=rank)
    validate(plan, experts)
    return apply(plan, experts, id)


def _parameters(rule: Rule, given: Mapping[str, float]) -> dict[str, float]:
    if unknown := sorted(set(given) - set(rule.parameters)):
        taken = f"takes {', '.join(rule.parameters)}" if rule.parameters else "takes none"
        raise MixError(f"Rule {rule.name} has no parameter {unknown[0]!r}; it {taken}.")
    told = {name: given.get(name, p.default) for name, p in rule.parameters.items()}
    for name, value in told.items():
        low, high = rule.parameters[name].low, rule.parameters[name].high
        if not low < value <= high:
            raise MixError(f"{name} of {rule.name} lies above {low:g} and up to {high:g}, "
                           f"not {value:g}.")  # fmt: skip
    return told


def _weights(rule: Rule, count: int, given: Sequence[float] | None) -> tuple[float, ...]:
    if given is None:
        if rule.weights == "given":
            raise MixError(f"Rule {rule.name} needs a weight for every expert.")
        return {"none": (), "shares": (1 / count,) * count, "factors": (1.0,) * count}[rule.weights]
    if rule.weights == "none":
        raise MixError(f"Rule {rule.name} takes no weights.")
    if len(given) != count or not all(map(math.isfinite, given)):
        raise MixError(f"{count} finite weights are needed, one per expert.", weights=list(given))
    if rule.weights != "shares":
        return tuple(map(float, given))
    total = sum(given)
    if min(given) < 0 or not total:
        raise MixError(f"Weights of {rule.name} are not negative, nor all 0.", weights=list(given))
    return tuple(w / total for w in given)


def _uneven(experts: Sequence[ExpertWeights]) -> list[str]:
    """Sites where the experts' ranks differ."""
    ranks: dict[str, set[int]] = {}
    for expert in experts:
        for site, factors in expert.sites.items():
            ranks.setdefault(site, set()).add(factors["A"].shape[0])
    return [site for site, found in ranks.items() if len(found) > 1]
