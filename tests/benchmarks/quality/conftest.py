"""A whole comparison in small: three experts for `tiny-random`, two tasks that have none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.quality.rows import COMPARISON, Row
from benchmarks.quality.workbench import Bench, Places, open_bench
from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.kinds import KINDS
from experts.manifest import BackboneRef, Manifest, TaskCard
from experts.training.build import read_cards
from experts.training.data import Task
from experts.weights import ExpertWeights
from experts.writing import write_expert
from routers.fitting.arrow import arrow_coefficients
from routers.fitting.centroids import prototypes
from routers.token.gate import standardise

ROOT = Path(__file__).parents[3]
TASKS, CARDS = ROOT / "tests" / "data" / "tasks", ROOT / "library" / "tasks"
HELD_IN = ("mrpc", "trec", "sick")
HELD_OUT = {"subj": "subj", "bbh_openbookqa": "openbookqa"}
"""Name here -> the task of the test data it is a copy of."""
ROWS = {row.name: row for row in COMPARISON}


def rows(*names: str) -> tuple[Row, ...]:
    return tuple(ROWS[name] for name in names)


def write_one(root: Path, backbone: TextEncoder, card: TaskCard, task: Task | None) -> None:
    """An expert with random weights; with artefacts where its task is given."""
    rng, kind = torch.Generator().manual_seed(sum(map(ord, card.id))), KINDS["lora"]
    fresh = kind.initial(kind.target_sites(backbone.sites.values()), rank=2, generator=rng)
    sites = {
        site: {part: torch.randn(t.shape, generator=rng) * 0.2 for part, t in parts.items()}
        for site, parts in fresh.items()
    }
    weights = ExpertWeights(card.id, "lora", kind.group(sites), sites)
    artefacts = None
    if task is not None:
        gates = {s: standardise(torch.randn(backbone.sites[s].in_features, generator=rng))
                 for s in sites}  # fmt: skip
        words = [w.text for label in card.labels for w in label.known]
        artefacts = Artefacts(
            backbone.fingerprint, backbone.embed(card.instructions), backbone.embed(words),
            prototypes(backbone.halfway(backbone.features([e.input for e in task.train])), 4),
            {"gate": gates, "arrow": arrow_coefficients(weights)},
        )  # fmt: skip
    manifest = Manifest(
        **card.model_dump(), kind="lora",
        backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
    )  # fmt: skip
    write_expert(root, manifest, weights, artefacts, dtype=torch.float32)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a library, and cards of the held-out tasks, below one folder."""
    torch.set_num_threads(1)  # as the engine does; the parts are tiny
    root = tmp_path_factory.mktemp("world")
    cards, backbone = read_cards(CARDS), tiny_encoder()
    with torch.inference_mode():
        for name in HELD_IN:
            shutil.copytree(TASKS / name, root / "data" / "held_in" / name)
            write_one(root / "library", backbone, cards[name], Task(TASKS / name))
    (root / "cards").mkdir()
    for name, source in HELD_OUT.items():
        shutil.copytree(TASKS / source, root / "data" / "held_out" / name)
        card = cards[source].model_copy(update={"id": name})
        (root / "cards" / f"{name}.json").write_text(card.model_dump_json())
    return root


@pytest.fixture(scope="session")
def measured_world(small_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that tests share; they measure in it and change nothing else."""
    return shutil.copytree(small_world, tmp_path_factory.mktemp("measured") / "world")


@pytest.fixture
def world(small_world: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(small_world, tmp_path / "world")


def places_of(world: Path) -> Places:
    return Places(
        world / "data", world / "library", "tiny-random", world / "cards", world / "work",
        threads=1, trained=world / "trained", held_out_log=world / "held_out_runs.jsonl",
    )  # fmt: skip


def bench_of(world: Path) -> Bench:
    return open_bench(places_of(world))


@pytest.fixture(scope="session")
def bench(measured_world: Path) -> Bench:
    return bench_of(measured_world)
