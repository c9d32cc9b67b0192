import pytest

from benchmarks.generation.shapes import Shape

TINY = {
    "llama": Shape("tiny", "llama", 2, 32, 2, 48, 96),
    "t5": Shape("tiny-t5", "t5", 2, 32, 2, 48, 96),
}


@pytest.fixture(params=TINY)
def tiny(request):
    """A shape of either family that is made in no time."""
    return TINY[request.param]


@pytest.fixture
def tiny_llama():
    """The one of them that is fastest to make."""
    return TINY["llama"]
