"""Experts on disk: folders that PEFT wrote, folders that we wrote, and ways to damage them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch

from experts.artefacts import TOKEN_ARTEFACTS, Artefacts
from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.directions import coefficients_of
from experts.entries import MANIFEST, Entry, read_manifest
from experts.library import Library
from experts.manifest import BackboneRef, Manifest
from experts.weights import ExpertWeights
from experts.writing import seal, write_expert


@pytest.fixture
def peft_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write an adapter with PEFT itself: `peft_folder("name", target_modules=["query"])`."""

    def write(name: str = "colours", **config: object) -> Path:
        options = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "dense"], **config}
        model = peft.get_peft_model(
            tiny_encoder(dtype=torch.float64).model, peft.LoraConfig(**options)
        )
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_(drawn * 0.3)
        folder = tmp_path / "inbox" / name
        model.save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def manifest_of(encoder64: TextEncoder) -> Callable[..., Manifest]:
    """A manifest for the tiny backbone: `manifest_of("id", kind="lora")`."""

    def make(id: str, **said: object) -> Manifest:
        ref = BackboneRef(id=encoder64.id, fingerprint=encoder64.fingerprint)
        return Manifest.model_validate(
            {"id": id, "title": f"Task {id}", "kind": "lora", "backbone": ref, **said}
        )

    return make


@pytest.fixture
def artefacts() -> Artefacts:
    """Artefacts of every request kind, 32 wide."""
    generator = torch.Generator().manual_seed(3)

    def rows(count: int) -> torch.Tensor:
        drawn = torch.randn(count, 32, generator=generator)
        return torch.nn.functional.normalize(drawn, dim=-1)

    return Artefacts("embedder-1", rows(2), rows(4), rows(1))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the library is; not there yet."""
    return tmp_path / "library"


@pytest.fixture
def stored(
    root: Path,
    make_expert: Callable[..., ExpertWeights],
    manifest_of: Callable[..., Manifest],
    artefacts: Artefacts,
) -> Callable[..., Entry]:
    """Write an expert of ours into the library's folder: `stored("id", kind="lora")`."""

    def write(id: str = "tides", kind: str = "lora", **options: object) -> Entry:
        weights = make_expert(kind, id, vectors=TOKEN_ARTEFACTS)
        vectors = {"gate": weights.vectors["gate"]}
        if kind == "lora":
            vectors["arrow"] = {site: coefficients_of(v_D, weights.sites[site]["A"])
                                for site, v_D in weights.vectors["arrow"].items()}  # fmt: skip
        whole = Artefacts(
            artefacts.embedder, artefacts.instructions, artefacts.choices, artefacts.centroids,
            vectors,
        )  # fmt: skip
        return write_expert(root, manifest_of(id, kind=kind), weights, whole, **options)

    return write


@pytest.fixture
def open_library(root: Path, encoder64: TextEncoder) -> Callable[[], Library]:
    """Open the library for the tiny backbone."""
    return lambda: Library.open(root, fingerprint=encoder64.fingerprint, backbone_id="tiny-random")


@pytest.fixture
def reseal() -> Callable[[Path], Entry]:
    """Make a changed folder's sha256s right again, so that only the change itself is wrong."""
    return lambda folder: Entry(folder, seal(folder, read_manifest(folder)))


@pytest.fixture
def edit_manifest() -> Callable[..., None]:
    """Change fields of a folder's `expert.json`."""

    def edit(folder: Path, **fields: object) -> None:
        path = folder / MANIFEST
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return edit


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look relies on what was written just before it: the file systems of tests are quick."""
    monkeypatch.setattr("experts.scanning.SETTLED_NS", 0)
