"""A size small enough to train in a test."""

import pytest
import torch

from benchmarks.generation.checkpoints import Size


@pytest.fixture(scope="session")
def tiny() -> Size:
    torch.set_num_threads(1)
    return Size(width=32, inner=64, layers=2, heads=2)
