"""A library of thousands of distinct experts on disk, made once and kept for later runs.

Their tensors and vectors are random but each one's own; instructions and inputs are gathered around
topics, as those of real tasks are. Inputs are drawn as the default router takes them to be: around
the expert's mean, by the metric of the demo library, whose constants this library has.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F

from benchmarks.places import CACHE, LIBRARY
from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.constants import CALIBRATION
from experts.kinds import KINDS
from experts.library import Library
from experts.manifest import BackboneRef, Manifest
from experts.weights import ExpertWeights
from experts.writing import write_expert
from routers.metric import Metric
from routers.types import Features

KEPT = CACHE / "libraries"
TOPICS, RANK, VECTORS = 200, 4, 4
SPREAD_OF_EXPERTS, SPREAD_OF_VECTORS = 1.0, 0.7
TOPICS_APART, EXPERTS_APART = 0.45, 0.18
"""Deviation of whitened means in each direction. The demo library's means lie 50 to 900 apart,
squared, and 8 to 60 where tasks are alike; here it is 310 and 50."""
BEYOND = (9.0, 8.0, 7.0, 6.0, 5.0, 4.5, 4.0, 3.5)
"""Variance along an expert's own directions beyond the metric's 1, as in the demo library."""
SEEN = (20, 2000)
PARTS = ("query", "value")


@dataclass(frozen=True)
class Inputs:
    """How one expert's inputs vary, whitened: by 1 everywhere, and more along its directions."""

    mean_F: Tensor
    spread_RF: Tensor

    def draw(self, count: int, rng: torch.Generator, noise: float = 1.0) -> Tensor:
        """Inputs (count, F), whitened; `noise` is the deviation in all other directions."""
        along_MR = torch.randn(count, len(self.spread_RF), generator=rng)
        rest_MF = torch.randn(count, len(self.mean_F), generator=rng)
        return self.mean_F + noise * rest_MF + along_MR @ self.spread_RF


class Maker:
    """Makes the experts of such a library, and queries for them."""

    def __init__(self, backbone: TextEncoder) -> None:
        self.backbone = backbone
        tensors = Library.open(LIBRARY).calibration_tensors()
        metric = Metric.from_tensors(tensors, backbone.feature_width)
        assert metric is not None
        self.metric = metric

    def library(self, count: int) -> Path:
        """The folder of a library of `count` experts, of rank 4 on queries and values."""
        constants = Library.open(LIBRARY).calibration or {}
        by = f"{self.backbone.fingerprint[:12]}-{constants['version']}"
        root = KEPT / f"{count}-{by}"
        missing = [i for i in range(count) if not (root / name_of(i) / "expert.json").exists()]
        for i in track(missing, f"Writing {count} experts", disable=not missing):
            self._write(root, i)
        for name in (str(constants["tensors"]), CALIBRATION):
            shutil.copyfile(LIBRARY / name, root / name)
        return root

    def query(self, index: int, seed: int, *, sentence: bool = True) -> Features:
        """What a request near an expert is: an input of its sort, and a paraphrase of its task."""
        rng = _rng(-1 - seed - 1000 * index)
        input_F = self._features(self._inputs(index).draw(1, rng))[0]
        told_D = _around(_centre(self.backbone.width, index), 1, SPREAD_OF_VECTORS, rng)[0]
        return Features(
            self.backbone.halfway(input_F), told_D if sentence else None, input_F=input_F
        )

    def _write(self, root: Path, index: int) -> None:
        backbone, rng, lora = self.backbone, _rng(index), KINDS["lora"]
        sites = [s for s in lora.target_sites(backbone.sites.values()) if s.name.endswith(PARTS)]
        tensors = lora.initial(sites, rank=RANK, generator=rng)
        for parts in tensors.values():
            parts["B"].normal_(std=0.01, generator=rng)
        gates = {
            s.name: F.normalize(torch.randn(s.in_features, generator=rng), dim=0) for s in sites
        }
        weights = ExpertWeights(
            name_of(index), "lora", lora.group(tensors), tensors, {"gate": gates}
        )
        manifest = Manifest(
            id=name_of(index), title=f"Synthetic expert {index}", kind="lora",
            instructions=(f"Do the work of synthetic expert {index}.",),
            backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
        )  # fmt: skip
        write_expert(root, manifest, weights, self._artefacts(index, rng, weights))

    def _artefacts(self, index: int, rng: torch.Generator, weights: ExpertWeights) -> Artefacts:
        backbone, inputs = self.backbone, self._inputs(index)
        centre_D = _centre(backbone.width, index)
        mean_1F = self.metric.centre_F + inputs.mean_F[None] @ self._unwhitening_FF
        few_VF = self._features(inputs.draw(VECTORS, rng, noise=0.0))  # clusters lie that way
        return Artefacts(
            backbone.fingerprint,
            instructions=_around(centre_D, VECTORS, SPREAD_OF_VECTORS, rng),
            centroids=backbone.halfway(few_VF),
            vectors=weights.vectors,
            inputs=torch.cat([mean_1F, inputs.spread_RF @ self._unwhitening_FF]),
            seen=int(torch.randint(*SEEN, (1,), generator=rng)),
        )

    def _inputs(self, index: int) -> Inputs:
        width = self.backbone.feature_width
        topic, rng = _rng(4 * 10**9 + index % TOPICS), _rng(3 * 10**9 + index)
        mean_F = TOPICS_APART * torch.randn(width, generator=topic)
        mean_F += EXPERTS_APART * torch.randn(width, generator=rng)
        own_FR = torch.linalg.qr(torch.randn(width, len(BEYOND), generator=rng))[0]
        return Inputs(mean_F, torch.tensor(BEYOND).sqrt()[:, None] * own_FR.T)

    def _features(self, white_MF: Tensor) -> Tensor:
        """Features (M, F) as the backbone gives them, two unit vectors each, of whitened ones."""
        raw_MF = self.metric.centre_F + white_MF @ self._unwhitening_FF
        halves_M2D = raw_MF.unflatten(1, (2, self.backbone.width))
        return F.normalize(halves_M2D, dim=-1).flatten(1)

    @cached_property
    def _unwhitening_FF(self) -> Tensor:
        return torch.linalg.inv(self.metric.whitening_FF.double()).float()


def name_of(index: int) -> str:
    """The id of an expert."""
    return f"e{index:05d}"


def _centre(width: int, index: int) -> Tensor:
    rng = _rng(10**9 + index)
    topic_D = F.normalize(torch.randn(width, generator=_rng(2 * 10**9 + index % TOPICS)), dim=0)
    return _around(topic_D, 1, SPREAD_OF_EXPERTS, rng)[0]


def _around(centre_D: Tensor, count: int, spread: float, rng: torch.Generator) -> Tensor:
    noise_ND = F.normalize(torch.randn(count, len(centre_D), generator=rng), dim=-1)
    return F.normalize(centre_D + spread * noise_ND, dim=-1)


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed % 2**63)
