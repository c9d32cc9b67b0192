"""The demo library on the full data: skipped, with the reason, where either is absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from experts.backbones.demo import demo_path
from experts.errors import BackboneError
from experts.training.data import Task
from server.build import build_engine
from server.engine.run import Engine
from server.settings import read_settings

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "held_in"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the full tasks."""
    if not DATA.is_dir():
        pytest.skip(f"the full data is not at {DATA}")
    return DATA


@pytest.fixture(scope="session")
def task_of(data: Path) -> Callable[[str], Task]:
    """A full task by name."""
    return lambda name: Task(data / name)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """An engine that all these tests share, and that keeps vectors of what they asked."""
    return demo_engine()


def demo_engine() -> Engine:
    """The engine that `sailplane serve` runs without options."""
    try:
        demo_path()
    except BackboneError as error:
        pytest.skip(error.message)
    settings = read_settings({"library": ROOT / "library" / "minilm", "threads": 1}).settings
    return build_engine(settings)
