"""Which strategy is cheapest for a shape. Constants are measured: `benchmarks/README.md`."""

from __future__ import annotations

from experts.kernels.use import Use

# Cost of one multiply-add in each strategy, in units of a large dense product's.
GATHERED_PRODUCT = 1.5
MASKED_PRODUCT = 1.0
GROUPED_PRODUCT = 3.0
FUSED_PRODUCT = 1.25
# Cost of copying one parameter, in the same units.
COPY = 8.0
# What a call costs beside its products, in the same units: some have more steps.
GATHERED_STEPS = 8e5
MASKED_STEPS = 6e5
GROUPED_STEPS = 9e5
FUSED_STEPS = 2e5


def cheapest(use: Use, rank: int, width: int, *, fused: bool = False) -> str:
    """Name of the strategy with the least estimated cost.

    Args:
        use: the pass. rank: rows of one expert's factor. width: sum of the factors' widths.
        fused: whether that strategy may be taken.
    """
    per_expert = rank * width
    each = per_expert * use.width
    costs = {
        "gathered": GATHERED_STEPS + each * (COPY * use.rows + GATHERED_PRODUCT * use.tokens),
        "masked": MASKED_STEPS + use.experts * per_expert * MASKED_PRODUCT * use.tokens,
    }
    if fused:
        costs["fused"] = FUSED_STEPS + each * FUSED_PRODUCT * use.tokens
    best = min(costs, key=costs.__getitem__)
    if fused or GROUPED_STEPS + each * GROUPED_PRODUCT * use.tokens >= costs[best]:
        return best
    # Only now: who shares an expert takes a moment to find out.
    groups = use.groups
    copied = 0 if groups.expert_E is None else groups.experts
    grouped = GROUPED_STEPS + per_expert * (GROUPED_PRODUCT * len(groups.token_S) + COPY * copied)
    return "grouped" if grouped < costs[best] else best
