"""Small catalogues of random unit vectors, drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from experts.artefacts import Artefacts
from routers.catalogue import Catalogue, Routed

WIDTH = 16


def units(count: int, seed: int, width: int = WIDTH) -> Tensor:
    """(count, width) random unit vectors."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, width, generator=generator), dim=-1)


MakeCatalogue = Callable[..., Catalogue]


@pytest.fixture
def catalogue_of() -> MakeCatalogue:
    """A catalogue of E experts `e00`, `e01`, ...: `catalogue_of(3, group={1: "bottleneck/8"})`.

    `vectors` names the token artefacts that all but the experts in `without` have.
    """

    def make(
        count: int,
        *,
        group: dict[int, str] | None = None,
        vectors: tuple[str, ...] = ("gate", "arrow"),
        without: tuple[int, ...] = (),
    ) -> Catalogue:
        experts = [
            Routed(
                f"e{i:02d}",
                Artefacts(
                    "embedder",
                    instructions=units(2, 10 * i),
                    choices=units(5, 10 * i + 1),
                    centroids=units(3, 10 * i + 2),
                    vectors={} if i in without else {v: {"site": units(1, i)[0]} for v in vectors},
                ),
                version=i + 1,
                group=(group or {}).get(i, "lora"),
                forms=(2, 3),
            )
            for i in range(count)
        ]
        return Catalogue(experts)

    return make
