"""Which strategy is cheapest for a shape. Constants are measured: `benchmarks/README.md`."""

from __future__ import annotations

from experts.kernels.use import Use

# Cost of one multiply-add in each strategy, in units of a large dense product's.
GATHERED_PRODUCT = 2.0
MASKED_PRODUCT = 1.0
# Cost of copying one parameter, in the same units.
COPY = 4.0


def cheapest(use: Use, rank: int, width: int) -> str:
    """Name of the strategy with the least estimated cost.

    Args:
        use: the pass. rank: rows of one expert's factor. width: sum of the factors' widths.
    """
    if use.row_N is not None:
        return "masked"
    per_expert = rank * width
    gathered = use.rows * use.width * per_expert * (COPY + GATHERED_PRODUCT * use.tokens_per_row)
    masked = use.experts * per_expert * MASKED_PRODUCT * use.tokens
    return "gathered" if gathered < masked else "masked"
