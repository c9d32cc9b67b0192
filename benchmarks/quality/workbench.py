"""The scratch library that the comparison asks, below `benchmarks/.cache/quality/`.

The demo library's experts with one addition: a bank of training features (`examples`) for the rows
that look neighbours up. Beside them stand experts that no router can choose, since they have no
artefacts: merged ones, one trained on all tasks, LoraHub's. Built anew only where an input changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from benchmarks.held_out import LOG
from benchmarks.places import CACHE, LIBRARY
from benchmarks.quality.ablations import add_ablations
from benchmarks.quality.trained import BANK, Trained, read_trained, variation_of
from experts.artefacts import Artefacts
from experts.atomic import atomic_folder, remove_folder
from experts.backbones import TextEncoder, open_backbone
from experts.constants import CALIBRATION
from experts.entries import CONFIG, WEIGHTS, Entry
from experts.library import Library
from experts.manifest import TaskCard
from experts.training.build import read_cards
from experts.writing import refill
from routers.fitting.variation import Variation
from server.aside import Aside
from server.build import build_engine
from server.calibrate import MOST_INPUTS
from server.engine.run import Engine
from server.engine.view import Built
from server.evaluate import foreign_words
from server.settings import read_settings

WORK = CACHE / "quality"
CARDS = Path(__file__).parent / "cards"
TRAINED = Path(__file__).parent / "experts"
"""A library of experts trained for rows: `multitask`. It takes an hour, so it is kept with us."""
STAMP = ".built-from"
TRAIN = "train.jsonl.gz"
Told = Callable[[str], object]


@dataclass(frozen=True)
class Places:
    """Where a comparison reads and works.

    Attributes:
        data: holds `held_in` and `held_out`. library: the experts compared. cards: of held-out
            tasks. work: the scratch library, cells and made experts. trained: see `TRAINED`.
            held_out_log: a line for every run that asks held-out test files.
    """

    data: Path
    library: Path = LIBRARY
    backbone: str = "demo"
    cards: Path = CARDS
    work: Path = WORK
    threads: int = 0
    trained: Path = TRAINED
    held_out_log: Path = LOG

    @property
    def scratch(self) -> Path:
        """The scratch library."""
        return self.work / "library"

    @property
    def made(self) -> Path:
        """A library of experts made for rows: `average`, `ties`, `lorahub.<task>`."""
        return self.work / "made"

    @property
    def cells(self) -> Path:
        """What was measured."""
        return self.work / "cells"


@dataclass(frozen=True, eq=False)
class Bench:
    """A scratch library, open, and what is known of the tasks."""

    places: Places
    engine: Engine
    experts: tuple[str, ...]
    cards: Mapping[str, TaskCard]

    @cached_property
    def words(self) -> list[str]:
        """Labels of all tasks, for the foreign one of `reworded`."""
        return foreign_words(self.cards)

    def has(self, expert: str) -> bool:
        """Whether an expert is there to be named."""
        return expert in self.engine.library.entries

    @cached_property
    def experts_digest(self) -> str:
        """Names what routers know of the experts.

        By what they were built from: equal tensors need not make equal files.
        """
        stamps = [(self.places.scratch / id / STAMP).read_text("utf-8") for id in self.experts]
        return digest_of(stamps)

    @cached_property
    def routing_digest(self) -> str:
        """Names all that routers know: experts and constants."""
        constants = dict(self.engine.library.snapshot.calibration or {})
        constants.pop("reference", None)
        return digest_of(self.experts_digest, constants)

    @cached_property
    def sha(self) -> Callable[[Path], str]:
        """The sha256 of a data file, read once."""
        return lru_cache(None)(sha_of)

    def without(self, task: str) -> Built:
        """The library as routers would see it, had the task's expert never joined it.

        Nor has its metric seen the task, if it has one.
        """
        built = self.engine.routing.current()
        metric = self._variation.metric(without=(task,)) if built.metric else None
        return self._aside.without((task,), built, metric)

    @cached_property
    def _aside(self) -> Aside:
        return Aside(self.engine.routing.current(), {})

    @cached_property
    def _variation(self) -> Variation:
        found = {id: _trained(self.places, id, self.engine.backbone) for id in self.experts}
        return variation_of({id: t for id, t in found.items() if t})

    def expert_digest(self, id: str) -> str:
        """Names an expert's weights."""
        files = self.engine.library.get(id).manifest.files
        return digest_of(id, {name: files[name] for name in (CONFIG, WEIGHTS)})


def digest_of(*parts: object) -> str:
    """A name for these parts."""
    said = json.dumps(parts, sort_keys=True, default=str).encode()
    return hashlib.blake2b(said, digest_size=12).hexdigest()


def open_bench(places: Places, told: Told = lambda _: None) -> Bench:
    """Build the scratch library where it is out of date, and open it.

    Raises:
        ExpertError: the library or the data cannot be read.
    """
    backbone = open_backbone(places.backbone)
    library = Library.open(
        places.library, fingerprint=backbone.fingerprint, backbone_id=backbone.id
    )
    experts = tuple(id for id, e in library.entries.items() if e.read_artefacts().routable)
    for id in experts:
        _place(places, library.get(id), backbone, told)
    made = _place_made(places, backbone)
    _copy_constants(places)
    _sweep(places.scratch, {*experts, *made})
    engine = open_engine(places, places.scratch)
    add_ablations(engine)
    held_in = {id: e.manifest for id, e in library.entries.items()}
    return Bench(places, engine, experts, {**read_cards(places.cards), **held_in})


def open_engine(places: Places, library: Path) -> Engine:
    """The engine that serves, over one of the libraries."""
    given = {"library": library, "backbone": places.backbone, "threads": places.threads}
    return build_engine(read_settings(given).settings)


def _place(places: Places, entry: Entry, backbone: TextEncoder, told: Told) -> None:
    """An expert of the library, with its bank."""
    train = places.data / "held_in" / entry.id / TRAIN
    stamp = digest_of(entry.digest, BANK, sha_of(train))
    if _is_built(places.scratch / entry.id, stamp):
        return
    told(f"features of {entry.id}'s training examples")
    trained = _trained(places, entry.id, backbone)
    examples_MD = trained and trained.examples.float()
    artefacts = replace(entry.read_artefacts(), examples=examples_MD)
    manifest = entry.manifest.model_copy(update={"tags": ()})
    with atomic_folder(places.scratch / entry.id) as folder:
        refill(folder, entry, manifest, artefacts)
        (folder / STAMP).write_text(stamp, "utf-8")


def _trained(places: Places, id: str, backbone: TextEncoder) -> Trained | None:
    """What is kept of an expert's training inputs; None where they are not there."""
    task = places.data / "held_in" / id
    if not (task / TRAIN).exists():
        return None
    key = digest_of(backbone.fingerprint, BANK, MOST_INPUTS, sha_of(task / TRAIN))
    return read_trained(places.work / "trained" / f"{key}.safetensors", task, backbone)


def _place_made(places: Places, backbone: TextEncoder) -> list[str]:
    """The experts made for rows, without artefacts: no router can choose them."""
    placed: list[str] = []
    for root in (places.trained, places.made):
        if root.is_dir():
            made = Library.open(root, fingerprint=backbone.fingerprint, backbone_id=backbone.id)
            for id, entry in made.entries.items():
                _place_bare(places.scratch / id, entry, backbone)
                placed.append(id)
    return placed


def _place_bare(target: Path, entry: Entry, backbone: TextEncoder) -> None:
    stamp = digest_of(entry.digest)
    if not _is_built(target, stamp):
        with atomic_folder(target) as folder:
            bare = Artefacts(backbone.fingerprint)
            refill(folder, entry, entry.manifest.model_copy(update={"tags": ()}), bare)
            (folder / STAMP).write_text(stamp, "utf-8")


def _copy_constants(places: Places) -> None:
    places.scratch.mkdir(parents=True, exist_ok=True)
    for path in [places.library / CALIBRATION, *places.library.glob("calibration-*.safetensors")]:
        if path.exists():
            shutil.copyfile(path, places.scratch / path.name)


def _sweep(scratch: Path, wanted: set[str]) -> None:
    """Take out experts that are no longer there."""
    for folder in scratch.iterdir():
        if folder.is_dir() and not folder.name.startswith(".") and folder.name not in wanted:
            remove_folder(folder)


def _is_built(folder: Path, stamp: str) -> bool:
    path = folder / STAMP
    return path.exists() and path.read_text("utf-8") == stamp


def sha_of(path: Path) -> str:
    """The sha256 of a file; empty where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
