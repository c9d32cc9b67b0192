"""Sizes and shapes that are made, or trained, in no time."""

import pytest
import torch

from benchmarks.generation.checkpoints import Size
from benchmarks.generation.shapes import Shape

SHAPES = {
    "llama": Shape("tiny", "llama", 2, 32, 2, 48, 96),
    "t5": Shape("tiny-t5", "t5", 2, 32, 2, 48, 96),
}


@pytest.fixture(scope="session")
def tiny() -> Size:
    """A size small enough to train in a test."""
    torch.set_num_threads(1)
    return Size(width=32, inner=64, layers=2, heads=2)


@pytest.fixture(params=SHAPES)
def tiny_shape(request) -> Shape:
    """A shape of either family."""
    return SHAPES[request.param]


@pytest.fixture
def tiny_llama() -> Shape:
    """The one of them that is fastest to make."""
    return SHAPES["llama"]
