"""Small LoRA experts for sites of several shapes, drawn from a seed, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from experts.weights import ExpertWeights

SHAPES = {"wide": (3, 7), "tall": (8, 4), "square": (5, 5)}
"""Site -> (D, O)."""


def lora(
    id: str, ranks: Mapping[str, int] | int = 2, seed: int | None = None, scale: float = 1.0
) -> ExpertWeights:
    """A random LoRA expert at some of the sites."""
    generator = torch.Generator().manual_seed(sum(map(ord, id)) if seed is None else seed)
    ranks = ranks if isinstance(ranks, Mapping) else dict.fromkeys(SHAPES, ranks)

    def drawn(rank: int, width: int) -> Tensor:
        return torch.randn(rank, width, generator=generator, dtype=torch.float64) * scale

    sites = {
        site: {"A": drawn(rank, SHAPES[site][0]), "B": drawn(rank, SHAPES[site][1])}
        for site, rank in ranks.items()
    }
    return ExpertWeights(id, "lora", ("lora",), sites)


@pytest.fixture
def make() -> Callable[..., ExpertWeights]:
    """`make("a", ranks={"wide": 2})`."""
    return lora
