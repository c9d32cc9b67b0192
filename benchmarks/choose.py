"""The constants of `experts.kernels.choose`, measured: which strategy wins at which shape.

Sweeps rows, tokens per row, experts and experts per row at rank 8, prints where `cheapest` picks
a strategy that is slower than the best, and which constants would lose the least. In one thread,
as the lanes of an engine compute.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import Any, cast
from unittest.mock import patch

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.figures import Figure, reported
from benchmarks.material import RANK
from benchmarks.timing import take_turns
from experts.kernels import Use, choose, low_rank_add
from experts.kernels.choose import cheapest

ROWS, TOKENS, EXPERTS, PER_ROW = (1, 4, 16, 32, 64), (1, 8, 32, 128), (1, 2, 6, 16, 64), (1, 2, 8)
LAYERS = 4
"""Sites of a pass share what is known of its rows, so that a pass of one layer would mislead."""
WIDTHS = ((384, 384), (384, 1536), (1536, 384))
GRID = {
    "GATHERED_PRODUCT": (0.75, 1.0, 1.25, 1.5, 2.0, 3.0),
    "GROUPED_PRODUCT": (1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
    "FUSED_PRODUCT": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
    "TOUCH": (0.0, 1.0, 2.0, 4.0, 8.0),
    "COPY": (2.0, 4.0, 8.0, 16.0),
    "GATHERED_STEPS": (0.0, 1e5, 2e5, 4e5, 8e5, 1.6e6),
    "MASKED_STEPS": (0.0, 1e5, 2e5, 3e5, 6e5, 1.2e6),
    "GROUPED_STEPS": (0.0, 1e5, 3e5, 6e5, 9e5, 1.2e6, 2e6, 4e6),
    "ROW_STEPS": (0.0, 1e5, 2e5, 4e5),
    "FUSED_STEPS": (0.0, 5e4, 1e5, 2e5, 4e5),
}
CANDIDATES = {
    "tensors": ("gathered", "masked", "grouped"),
    "with loops": ("gathered", "masked", "fused"),
}
"""What is chosen among: where compiled loops serve and where they don't."""
STRATEGIES = tuple(sorted({name for names in CANDIDATES.values() for name in names}))
MOST_TOKENS = 4096  # no pass is larger
TOP_K = 2
WRONG = 1.15
"""A pick this much slower than the best counts as wrong; less is within the noise."""


@dataclass(frozen=True)
class Shape:
    """One point of the sweep.

    Attributes:
        per_token: weights for the best 2 of each token alone. ragged: told as rows of different
            lengths are, though it has none.
    """

    rows: int
    tokens: int
    experts: int
    per_row: int
    per_token: bool = False
    ragged: bool = False

    def use(self) -> Use:
        """A use of this shape, with none of its cached parts computed."""
        rng = torch.Generator().manual_seed(0)
        ids = [torch.randperm(self.experts, generator=rng) for _ in range(self.rows)]
        expert_BK = torch.stack([row[: self.per_row] for row in ids])
        count = self.rows * self.tokens if self.per_token else self.rows
        weight = torch.rand(count, self.per_row, generator=rng)
        if self.per_token:
            least_N1 = weight.topk(TOP_K, dim=1).values[:, -1:]
            weight = weight.masked_fill(weight < least_N1, 0.0)
        lengths = (self.tokens,) * self.rows if self.ragged else None
        tokens = self.rows * self.tokens
        return Use(expert_BK, weight, self.experts, tokens, lengths, self.per_token)


@dataclass(frozen=True)
class Point:
    """A shape, what is chosen among, and the seconds of each, over all widths together."""

    shape: Shape
    among: str
    seconds: dict[str, float]

    @cached_property
    def _use(self) -> Use:
        return self.shape.use()

    def picked(self) -> str:
        """What `cheapest` takes at most of the widths."""
        fused = "fused" in self.seconds
        picks = [cheapest(self._use, RANK, sum(widths), fused=fused) for widths in WIDTHS]
        return max(picks, key=picks.count)

    def loss(self, strategy: str) -> float:
        """Its time by the best one's."""
        return self.seconds[strategy] / min(self.seconds.values())


def run(quick: bool) -> list[Figure]:
    """How often `cheapest` is wrong and what that costs, with today's constants and the best."""
    shapes = list(_shapes())
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            points = [
                point
                for shape in track(shapes[::10] if quick else shapes, "shapes")
                for point in _points(shape, 2 if quick else 7)
            ]
    finally:
        torch.set_num_threads(before)
    wrong = [p for p in points if p.loss(p.picked()) > WRONG]
    _print_wrong(wrong)
    best = _best_constants(points)
    return [
        reported("shapes measured", len(points) // len(CANDIDATES)),
        *(reported(f"{among}: shapes where the pick is over {WRONG}x the best",
                   sum(p.among == among for p in wrong)) for among in CANDIDATES),
        *(reported(f"{among}: mean time of the pick / the best",
                   _mean_loss([p for p in points if p.among == among])) for among in CANDIDATES),
        *(reported(f"{name} in force", getattr(choose, name)) for name in GRID),
        *(reported(f"{name} that loses least (MASKED_PRODUCT = 1)", value)
          for name, value in best.items()),
        reported("mean time / the best with those in force", _mean_loss(points)),
        reported("mean time / the best with these", _with(points, best)),
    ]  # fmt: skip


def _shapes() -> Iterator[Shape]:
    for rows, tokens, experts, per_row in product(ROWS, TOKENS, EXPERTS, PER_ROW):
        if per_row <= experts <= rows * per_row and rows * tokens <= MOST_TOKENS:
            yield Shape(rows, tokens, experts, per_row)
            if per_row > TOP_K:
                yield Shape(rows, tokens, experts, per_row, per_token=True)
            if rows > 1 and tokens > 1:
                yield Shape(rows, tokens, experts, per_row, ragged=True)


def seconds(shape: Shape, rounds: int) -> dict[str, float]:
    """Median of every strategy at one shape, over the three widths of a layer's sites.

    Several layers are timed at once, as a pass has them: what a use computes once counts once.
    """
    tokens = shape.rows * shape.tokens
    layers = [
        (torch.randn(tokens, o), torch.randn(tokens, d),
         torch.randn(shape.experts, RANK, d), torch.randn(shape.experts, RANK, o))
        for d, o in WIDTHS
    ]  # fmt: skip

    def add(strategy: str) -> None:
        use = shape.use()
        for layer in layers * LAYERS:
            # Weights per token differ from site to site, weights per row do not.
            low_rank_add(*layer, use.routed(use.weight) if use.per_token else use, strategy)

    times = take_turns({name: partial(add, name) for name in STRATEGIES}, rounds)
    return {name: times.median(name) / LAYERS for name in STRATEGIES}


def _points(shape: Shape, rounds: int) -> list[Point]:
    spent = seconds(shape, rounds)
    return [
        Point(shape, among, {name: spent[name] for name in names})
        for among, names in CANDIDATES.items()
    ]


def _best_constants(points: Sequence[Point]) -> dict[str, float]:
    """Those on a grid whose picks lose little time: one after the other, until none gains."""
    best, least = {name: float(getattr(choose, name)) for name in GRID}, math.inf
    while (loss := _with(points, best)) < least:
        least = loss
        for name, values in GRID.items():
            tries = [{**best, name: value} for value in (best[name], *values)]
            best = min(tries, key=lambda constants: _with(points, constants))
    return best


def _with(points: Sequence[Point], constants: Mapping[str, float]) -> float:
    """Mean loss under other constants, through the same formula."""
    with patch.multiple(choose, spec=None, **cast(dict[str, Any], constants)):
        return _mean_loss(points)


def _mean_loss(points: Sequence[Point]) -> float:
    """Geometric mean: no shape outweighs another by its size."""
    return math.exp(sum(math.log(p.loss(p.picked())) for p in points) / len(points))


def _print_wrong(points: Sequence[Point]) -> None:
    table = Table(
        "rows", "tokens/row", "experts", "per row", "weights", "among", "picked", *STRATEGIES,
        title="where `cheapest` is wrong (ms)", title_justify="left",
    )  # fmt: skip
    for p in sorted(points, key=lambda p: -p.loss(p.picked())):
        s = p.shape
        weights = "token" if s.per_token else "row, ragged" if s.ragged else "row"
        cells = [s.rows, s.tokens, s.experts, s.per_row, weights]
        spent = [f"{p.seconds[name] * 1e3:.3f}" if name in p.seconds else "" for name in STRATEGIES]
        table.add_row(*map(str, cells), p.among, p.picked(), *spent)
    Console().print(table)
