"""The merge rules, a row each: name, paper, what it may be told, and its function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from experts.merging.factors import average, lorahub, task_arithmetic
from experts.merging.ties import ties
from experts.weights import ExpertWeights, SiteTensors

Merge = Callable[
    [Sequence[ExpertWeights], Sequence[float], Mapping[str, float]], Mapping[str, SiteTensors]
]
"""From experts, weights and parameters to the merged expert's tensors by site."""


@dataclass(frozen=True)
class Parameter:
    """A number that a rule takes: its default, and the range (low, high] it lies in."""

    default: float
    low: float
    high: float


@dataclass(frozen=True)
class Rule:
    """One way to make one expert of several.

    Attributes:
        paper: where it is from. parameters: by name.
        weights: "shares" are not negative and made to sum to 1, equal by default; "factors" are
            any finite numbers, 1 by default; "given" are the same without a default; a rule with
            "none" takes none.
        kinds: of experts it merges. equal_ranks: whether ranks must be equal at every site.
    """

    name: str
    paper: str
    merge: Merge
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    weights: Literal["shares", "factors", "given", "none"] = "none"
    kinds: tuple[str, ...] = ("lora",)
    equal_ranks: bool = False


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "average", "the mean of the deltas; of bottlenecks, DAM's (Cheng et al. 2024)",
            average, weights="shares", kinds=("lora", "bottleneck"),
        ),
        Rule(
            "task_arithmetic", "Ilharco et al. 2023; 0.4 as in the demo of TIES", task_arithmetic,
            {"lambda": Parameter(0.4, -10.0, 10.0)}, weights="factors",
        ),
        Rule(
            "ties", "Yadav et al. 2023", ties,
            {"density": Parameter(0.2, 0.0, 1.0), "lambda": Parameter(1.0, -10.0, 10.0)},
        ),
        Rule("lorahub", "Huang et al. 2023", lorahub, weights="given", equal_ranks=True),
    )
}  # fmt: skip
