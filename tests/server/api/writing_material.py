"""Servers on the tiny language models, over a library of three random experts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from experts.artefacts import Artefacts
from experts.backbones import LanguageModel
from experts.kinds import KINDS
from experts.manifest import BackboneRef, Manifest
from experts.weights import ExpertWeights
from experts.writing import write_expert
from routers.fitting.arrow import arrow_coefficients
from server.build import build_engine
from server.engine.run import Engine
from server.settings import Settings
from tests.language_models import FAMILIES

TASKS = {
    "reverse": "Reverse the letters of a word, requiring care.",
    "sum": "Add two numbers, requiring arithmetic.",
    "plural": "Write the plural of a noun, requiring grammar.",
}


def write_library(root: Path, backbone: LanguageModel) -> Path:
    """Experts with instructions, gates and Arrow prototypes."""
    kind = KINDS["lora"]
    for id, instruction in TASKS.items():
        rng = torch.Generator().manual_seed(sum(map(ord, id)))
        fresh = kind.initial(backbone.sites.values(), rank=4, generator=rng)
        sites = {
            site: {part: torch.randn(t.shape, generator=rng) * 0.3 for part, t in parts.items()}
            for site, parts in fresh.items()
        }
        weights = ExpertWeights(id, "lora", kind.group(sites), sites)
        gates = {s: torch.randn(backbone.sites[s].in_features, generator=rng) for s in sites}
        manifest = Manifest(
            id=id, title=id, kind="lora", instructions=(instruction,),
            backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
        )  # fmt: skip
        artefacts = Artefacts(
            embedder=backbone.fingerprint, instructions=backbone.embed([instruction]),
            vectors={"gate": gates, "arrow": arrow_coefficients(weights)},
        )  # fmt: skip
        write_expert(root, manifest, weights, artefacts, dtype=torch.float32)
    return root


def engine_of(family: str, library: Path, **settings: Any) -> Engine:
    """An engine over such a library."""
    library.mkdir(exist_ok=True)
    write_library(library, FAMILIES[family]())
    return build_engine(Settings(backbone=f"tiny-{family}", library=library, threads=2, **settings))
