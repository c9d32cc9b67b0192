"""A library of thousands of distinct experts on disk, made once and kept for later runs.

Their tensors and vectors are random but each one's own; instructions and centroids are gathered
around topics, as those of real tasks are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.kinds import KINDS
from experts.manifest import BackboneRef, Manifest
from experts.weights import ExpertWeights
from experts.writing import write_expert

KEPT = Path(__file__).parent / ".cache" / "libraries"
TOPICS, RANK, VECTORS = 200, 4, 4
SPREAD_OF_EXPERTS, SPREAD_OF_VECTORS = 1.0, 0.7
PARTS = ("query", "value")


def many_experts(backbone: TextEncoder, count: int) -> Path:
    """The folder of a library of `count` experts, of rank 4 on queries and values."""
    root = KEPT / f"{count}-{backbone.fingerprint[:12]}"
    missing = [i for i in range(count) if not (root / name_of(i) / "expert.json").exists()]
    for i in track(missing, f"Writing {count} experts", disable=not missing):
        _write(root, backbone, i)
    return root


def name_of(index: int) -> str:
    """The id of an expert."""
    return f"e{index:05d}"


def near(backbone: TextEncoder, index: int, seed: int) -> Tensor:
    """A unit vector (D,) near an expert's own, as a paraphrase would be."""
    return _around(_centre(backbone.width, index), 1, SPREAD_OF_VECTORS, _rng(-seed - 1))[0]


def _write(root: Path, backbone: TextEncoder, index: int) -> None:
    rng, lora = _rng(index), KINDS["lora"]
    sites = [s for s in lora.target_sites(backbone.sites.values()) if s.name.endswith(PARTS)]
    tensors = lora.initial(sites, rank=RANK, generator=rng)
    for parts in tensors.values():
        parts["B"].normal_(std=0.01, generator=rng)
    gates = {s.name: F.normalize(torch.randn(s.in_features, generator=rng), dim=0) for s in sites}
    weights = ExpertWeights(name_of(index), "lora", lora.group(tensors), tensors, {"gate": gates})
    centre_D = _centre(backbone.width, index)
    artefacts = Artefacts(
        backbone.fingerprint,
        instructions=_around(centre_D, VECTORS, SPREAD_OF_VECTORS, rng),
        centroids=_around(centre_D, VECTORS, SPREAD_OF_VECTORS, rng),
        vectors=weights.vectors,
    )
    manifest = Manifest(
        id=name_of(index), title=f"Synthetic expert {index}", kind="lora",
        instructions=(f"Do the work of synthetic expert {index}.",),
        backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
    )  # fmt: skip
    write_expert(root, manifest, weights, artefacts)


def _centre(width: int, index: int) -> Tensor:
    rng = _rng(10**9 + index)
    topic_D = F.normalize(torch.randn(width, generator=_rng(2 * 10**9 + index % TOPICS)), dim=0)
    return _around(topic_D, 1, SPREAD_OF_EXPERTS, rng)[0]


def _around(centre_D: Tensor, count: int, spread: float, rng: torch.Generator) -> Tensor:
    noise_ND = F.normalize(torch.randn(count, len(centre_D), generator=rng), dim=-1)
    return F.normalize(centre_D + spread * noise_ND, dim=-1)


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % 2**63)
