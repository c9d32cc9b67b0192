"""Small libraries for tiny backbones, and what their servers are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from experts.artefacts import Artefacts
from experts.backbones import Backbone
from experts.backbones.tiny import tiny_causal, tiny_encoder
from experts.constants import write_constants
from experts.kinds import KINDS
from experts.library import Library
from experts.manifest import BackboneRef, Label, Manifest
from experts.weights import ExpertWeights
from experts.writing import write_expert
from routers.calibration import Calibration

TASKS = {
    "weather": ("Say what the weather is like.", ("sunny", "rainy", "windy")),
    "mood": ("Tell the mood of the writer.", ("happy", "sad")),
    "flight": ("Say which part of a flight this is about.", ("launch", "soaring", "landing")),
}
ALIAS = "prod-mood"


def write_task(root: Path, id: str, backbone: Backbone, seed: int = 0) -> Path:
    """An expert with random weights and routing artefacts below `root`, as its next version."""
    instruction, labels = TASKS[id]
    kind = KINDS["lora"]
    generator = torch.Generator().manual_seed(1000 * seed + sum(map(ord, id)))
    targets = kind.target_sites(backbone.sites.values())
    sites = {
        site: {p: torch.randn(t.shape, generator=generator) * 0.2 for p, t in parts.items()}
        for site, parts in kind.initial(targets, rank=4, generator=generator).items()
    }
    manifest = Manifest(
        id=id, title=id.title(), kind="lora", instructions=(instruction,),
        labels=tuple(Label(value=label) for label in labels),
        backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
    )  # fmt: skip
    artefacts = Artefacts(
        embedder=backbone.fingerprint,
        instructions=backbone.embed([instruction]),
        choices=backbone.embed(list(labels)),
    )
    write_expert(root, manifest, ExpertWeights(id, "lora", kind.group(sites), sites), artefacts)
    return root / id


def write_library(root: Path, backbone: Backbone | None = None) -> Path:
    """Experts `weather` and `mood`, of which former versions are kept and an alias pins one."""
    backbone = backbone or tiny_encoder()
    root.mkdir()
    write_task(root, "weather", backbone)
    for seed in range(3):
        write_task(root, "mood", backbone, seed)
    width = backbone.embed(["one"]).shape[1]
    map_ = {"statement_map": torch.eye(2 * width, width), "statement_shift": torch.zeros(width),
            "statement_scale": torch.tensor(1.0)}  # fmt: skip
    write_constants(root, Calibration().model_dump(mode="json"), map_, None)
    opened(root, backbone).set_alias(ALIAS, "mood@2")
    return root


def write_writer(root: Path) -> Path:
    """A library for `tiny-causal`."""
    return write_library(root, tiny_causal())


def write_adapters(root: Path) -> Path:
    """`flight`, and a `mood` of other weights."""
    backbone = tiny_encoder()
    write_task(root, "flight", backbone)
    write_task(root, "mood", backbone, seed=9)
    return root


def opened(root: Path, backbone: Backbone | None = None) -> Library:
    """A library, read anew."""
    backbone = backbone or tiny_encoder()
    return Library.open(root, fingerprint=backbone.fingerprint, backbone_id=backbone.id)


def decision(text: str = "Not a cloud to be seen.", **routing: Any) -> dict[str, Any]:
    """A body of `/v1/decisions`."""
    question = {
        "type": "choice", "instructions": "Say what the weather is like.",
        "choices": [{"value": "sunny"}, {"value": "rainy"}],
    }  # fmt: skip
    body = {"model": "auto", "input": text, "questions": [question]}
    return {**body, "routing": routing} if routing else body


def completion(tokens: int, text: str = "Once upon a time", **more: Any) -> dict[str, Any]:
    """A body of `/v1/completions` that writes so many tokens."""
    return {"model": "auto", "prompt": text, "max_tokens": tokens, "ignore_eos": True, **more}
