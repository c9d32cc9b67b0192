"""Which strategy is cheapest for a shape. Constants are measured: `benchmarks/README.md`."""

from __future__ import annotations

from experts.kernels.use import Use

# Cost of one multiply-add in each strategy, in units of a large dense product's.
GATHERED_PRODUCT = 2.0
MASKED_PRODUCT = 1.0
GROUPED_PRODUCT = 4.0  # with the padding of uneven groups
# Cost of copying one parameter, in the same units.
COPY = 4.0
# What `grouped` costs beside its products, in the same units: it has more steps.
GROUPED_STEPS = 1.5e6


def cheapest(use: Use, rank: int, width: int) -> str:
    """Name of the strategy with the least estimated cost.

    Args:
        use: the pass. rank: rows of one expert's factor. width: sum of the factors' widths.
    """
    per_expert = rank * width
    each = COPY + GATHERED_PRODUCT * use.longest
    costs = {
        "gathered": use.rows * use.width * per_expert * each,
        "masked": use.experts * per_expert * MASKED_PRODUCT * use.tokens,
        "grouped": GROUPED_STEPS + use.width * per_expert * GROUPED_PRODUCT * use.tokens,
    }
    return min(costs, key=costs.__getitem__)
