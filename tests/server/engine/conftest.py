"""An engine on the tiny-random backbone, over a library in which every sort of expert stands."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.kinds import KINDS
from experts.manifest import BackboneRef, Label, Manifest, Wording
from experts.weights import ExpertWeights
from experts.writing import write_expert
from routers.fitting.arrow import arrow_coefficients
from routers.token.gate import standardise
from server.build import build_engine
from server.engine.run import Engine
from server.settings import Settings


def label(value: str, *wordings: str) -> Label:
    """A label with a statement and a negation of it."""
    return Label(
        value=value,
        wordings=tuple(Wording(value=w) for w in wordings),
        statements=(f"It is {value}.",),
        negations=(f"It is not {value}.",),
    )


LORA = {
    "weather": ("Say what the weather is like.", (label("sunny", "bright"), label("rainy"))),
    "mood": ("Tell the mood of the writer.", (label("happy", "glad"), label("sad", "gloomy"))),
    "flight": (
        "Say which part of a flight this is about.",
        (label("launch"), label("soaring", "thermalling"), label("landing")),
    ),
    "quiz": ("Answer the question.", ()),
}
BOTTLENECK = {"sound": ("Name the sound that is heard.", (label("bang"), label("hum")))}


@pytest.fixture(scope="session")
def tiny32() -> TextEncoder:
    return tiny_encoder()


def weights_of(backbone: TextEncoder, kind_name: str, id: str) -> ExpertWeights:
    kind = KINDS[kind_name]
    generator = torch.Generator().manual_seed(sum(map(ord, id)))
    fresh = kind.initial(kind.target_sites(backbone.sites.values()), rank=4, generator=generator)
    sites = {
        site: {part: torch.randn(t.shape, generator=generator) * 0.2 for part, t in parts.items()}
        for site, parts in fresh.items()
    }
    return ExpertWeights(id, kind_name, kind.group(sites), sites)


WriteExpert = Callable[..., Path]


@pytest.fixture(scope="session")
def write_one(tiny32: TextEncoder) -> WriteExpert:
    """Write one of the experts above below a folder, in float32: `write_one(root, "mood")`."""

    def write(root: Path, id: str, *, embedder: str | None = None) -> Path:
        kind = "bottleneck" if id in BOTTLENECK else "lora"
        instruction, labels = {**LORA, **BOTTLENECK}[id]
        weights = weights_of(tiny32, kind, id)
        manifest = Manifest(
            id=id, title=id.title(), kind=kind, instructions=(instruction,), labels=labels,
            backbone=BackboneRef(id=tiny32.id, fingerprint=tiny32.fingerprint),
        )  # fmt: skip
        words = [w.text for lb in labels for w in lb.known] or ["one", "two"]
        generator = torch.Generator().manual_seed(len(id))
        gates = {
            site: standardise(torch.randn(tiny32.sites[site].in_features, generator=generator))
            for site in weights.sites
        }
        vectors = {"gate": gates, "arrow": arrow_coefficients(weights)}
        artefacts = Artefacts(
            tiny32.fingerprint if embedder is None else embedder,
            instructions=tiny32.embed([instruction]),
            choices=tiny32.embed(words),
            centroids=tiny32.halfway(tiny32.features([f"A text about {word}." for word in words])),
            vectors={name: v for name, v in vectors.items() if v},
        )
        write_expert(root, manifest, weights, artefacts, dtype=torch.float32)
        return root / id

    return write


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, write_one: WriteExpert) -> Path:
    root = tmp_path_factory.mktemp("written")
    for id in (*LORA, *BOTTLENECK):
        write_one(root, id)
    return root


@pytest.fixture
def rich_library(tmp_path: Path, written: Path) -> Path:
    """A copy that a test may change."""
    return shutil.copytree(written, tmp_path / "rich")


@pytest.fixture
def rich(rich_library: Path) -> Engine:
    """The engine over all of them."""
    return build_engine(Settings(backbone="tiny-random", library=rich_library, threads=1))
