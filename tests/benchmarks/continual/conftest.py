"""A plan in small: a stream of three tasks on the tiny backbone, and a demo library of four."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.continual import plan as plans
from benchmarks.continual.plan import Plan
from experts.backbones.tiny import tiny_encoder
from experts.training.build import read_cards
from experts.training.data import Task
from experts.training.recipe import Recipe
from server.stream import Stream

TASKS = Path(__file__).parents[2] / "data" / "tasks"
CARDS = Path(__file__).parents[3] / "library" / "tasks"
ORDER = ("trec", "subj", "snips")
OTHERS = ("cola", "language_id", "mrpc")
"""Tasks of the demo library that are not the stream's; it has an expert of `ORDER[0]` too."""


@pytest.fixture(scope="session")
def small_plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """What is to be run; nothing is made but the demo library."""
    torch.set_num_threads(1)  # as the jobs do; the parts are tiny
    place = tmp_path_factory.mktemp("continual")
    for folder in ("data", "cards"):
        (place / folder).mkdir()
    (place / "data" / "held_in").symlink_to(TASKS)
    for name in ORDER:
        (place / "cards" / f"{name}.json").symlink_to(CARDS / f"{name}.json")
    backbone, recipe = tiny_encoder(), Recipe(rank=2, epochs=1, min_steps=1)
    demo = Stream(backbone, backbone, place / "demo", read_cards(CARDS), recipe)
    list(
        demo.train([Task(TASKS / name) for name in (*OTHERS, ORDER[0])], lambda _: lambda *_: None)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plans.STREAMS, "short", ORDER)
        yield Plan(
            data=place / "data", cache=place / "cache", cards=place / "cards",
            library=place / "demo", backbone="tiny-random", streams=("short",), kinds=("lora",),
            seeds=(0,), examples=6, epochs=1, limit=2,
        )  # fmt: skip
