"""`sailplane train --continual`: the bars of a stream, and the server that its experts join."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from server.cli.common import busy, notes
from server.settings import Settings

if TYPE_CHECKING:
    from experts.training.data import Task
    from experts.training.recipe import Recipe
    from experts.training.schedule import Progress as Told


def train_stream(
    settings: Settings, tasks: Sequence[Task], cards: Path, recipe: Recipe, *, gates: bool,
    server: str | None,
) -> None:  # fmt: skip
    """Train the experts of a stream one after the other; each joins the server when it is made.

    Raises:
        RemoteError: the server cannot be reached, or refuses an expert.
    """
    import httpx
    import torch

    from experts.backbones import open_backbone
    from experts.embedder import open_embedder
    from experts.training.build import read_cards
    from server.remote import PATIENCE, RemoteLibrary
    from server.stream import Stream

    client = httpx.Client(base_url=server, timeout=PATIENCE) if server else nullcontext()
    with client as opened:
        remote = RemoteLibrary(opened) if opened else None
        if remote:
            remote.require_ready()  # before an hour of training
            remote.require_free([t.name for t in tasks if not (settings.library / t.name).is_dir()])
        torch.set_num_threads(1)  # as a job of `train`: the same expert, bit for bit
        with busy(f"Loading backbone {settings.backbone}"):
            backbone = open_backbone(settings.backbone)
            embedder = open_embedder(settings.embedder, backbone, backbone_name=settings.backbone)
        stream = Stream(backbone, embedder, settings.library, read_cards(cards), recipe, gates)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
                   TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
        with Progress(*columns, console=notes) as bars:
            made = stream.train(tasks, lambda what: _bar(bars, what))
            for task, entry in zip(tasks, made, strict=True):
                inputs = [e.input for e in task.train[: recipe.examples]]
                joined = remote is not None and remote.join(entry, inputs)
                served = f" is served at {server} now" if joined else " is ready"
                notes.print(f"{entry.ref}{served}.", highlight=False, soft_wrap=True)


def _bar(bars: Progress, what: str) -> Told:
    """A bar of its own, and who moves it."""
    row = bars.add_task(what, total=None, note="")

    def told(done: int, total: int, loss: float) -> None:
        bars.update(row, completed=done, total=total, note=f"loss {loss:.3f}")

    return told
