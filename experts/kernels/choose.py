"""Which strategy is cheapest for a shape. Constants are measured: `benchmarks/README.md`."""

from __future__ import annotations

from experts.kernels.use import Use

# Cost of one multiply-add in each strategy, in units of a large dense product's.
GATHERED_PRODUCT = 1.0
MASKED_PRODUCT = 1.0
GROUPED_PRODUCT = 3.0
FUSED_PRODUCT = 1.25
# Cost of reading or adding to one number of a token, in the same units: once for all its experts
# together, or (grouped, fused) for each, which is counted in the product.
TOUCH = 2.0
# Cost of copying one parameter, in the same units.
COPY = 8.0
# What a call costs beside its products, in the same units: some have more steps.
GATHERED_STEPS = 8e5
MASKED_STEPS = 6e5
GROUPED_STEPS = 9e5
FUSED_STEPS = 0.0
# The same for each row, where rows of different lengths take products of their own (about 10 us).
ROW_STEPS = 2e5


def cheapest(use: Use, rank: int, width: int, *, fused: bool = False) -> str:
    """Name of the strategy with the least estimated cost.

    Args:
        use: the pass. rank: rows of one expert's factor. width: sum of the factors' widths.
        fused: whether that strategy may be taken.
    """
    per_expert, touched = rank * width, TOUCH * width * use.tokens
    each, products = per_expert * use.width, per_expert * use.tokens
    steps = GATHERED_STEPS + (0 if use.lengths is None else ROW_STEPS * use.rows)
    costs = {
        "gathered": steps + touched + COPY * each * use.rows
        + GATHERED_PRODUCT * products * use.width,
        "masked": MASKED_STEPS + touched + MASKED_PRODUCT * products * use.experts,
    }  # fmt: skip
    best = min(costs, key=costs.__getitem__)
    # The last two pass over what a token does not use. Who uses what takes a moment to find out,
    # so it is asked for only where that may decide.
    if fused:
        return "fused" if _fused_is_cheaper(use, per_expert, costs[best]) else best
    return "grouped" if _grouped_is_cheaper(use, per_expert, costs[best]) else best


def _fused_is_cheaper(use: Use, per_expert: int, least: float) -> bool:
    """Whether loops over the pairs of token and expert cost less than this."""
    each = FUSED_PRODUCT * per_expert
    if FUSED_STEPS + each * use.tokens * use.width < least:
        return True
    pairs = int(use.weight.count_nonzero()) if use.per_token else len(use.pairs.token_P)
    return FUSED_STEPS + each * pairs < least


def _grouped_is_cheaper(use: Use, per_expert: int, least: float) -> bool:
    """Whether products of each expert with its tokens cost less than this."""
    if GROUPED_STEPS + GROUPED_PRODUCT * per_expert * use.tokens * use.width >= least:
        return False
    groups = use.groups
    copied = 0 if groups.expert_E is None else groups.experts
    products = GROUPED_PRODUCT * len(groups.token_S)
    return GROUPED_STEPS + per_expert * (products + COPY * copied) < least
