"""A real server on the tiny-random backbone, over a small library of random LoRA experts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi import FastAPI
from safetensors.torch import load_file, save_file

from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.kinds import KINDS
from experts.manifest import BackboneRef, Label, Manifest
from experts.weights import ExpertWeights
from experts.writing import write_expert
from server.api.bounds import Bounds
from server.app import create_app
from server.build import build_engine
from server.engine.run import Engine
from server.engine.service import EngineService
from server.settings import Settings

TASKS = {
    "weather": ("Say what the weather is like.", ("sunny", "rainy", "windy")),
    "mood": ("Tell the mood of the writer.", ("happy", "sad")),
    "flight": ("Say which part of a flight this is about.", ("launch", "soaring", "landing")),
}
Client = httpx.AsyncClient


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tiny() -> TextEncoder:
    return tiny_encoder()


def random_expert(tiny: TextEncoder, id: str) -> ExpertWeights:
    """LoRA experts of which no two act alike."""
    kind = KINDS["lora"]
    generator = torch.Generator().manual_seed(sum(map(ord, id)))
    targets = kind.target_sites(tiny.sites.values())
    ranks = {site.name: 4 for site in targets}
    sites = {
        site.name: {
            part: torch.randn(tensor.shape, generator=generator) * 0.2
            for part, tensor in kind.initial([site], rank=ranks[site.name], generator=generator)[
                site.name
            ].items()
        }
        for site in targets
    }
    return ExpertWeights(id, "lora", kind.group(sites), sites)


def random_gates(tiny: TextEncoder, id: str) -> dict[str, torch.Tensor]:
    """A vector for token routing at every site an expert changes."""
    generator = torch.Generator().manual_seed(len(id))
    targets = KINDS["lora"].target_sites(tiny.sites.values())
    return {site.name: torch.randn(site.in_features, generator=generator) for site in targets}


@pytest.fixture
def write_task(tiny: TextEncoder) -> Callable[[Path, str], Path]:
    """Write the expert of one of `TASKS` below a folder, fitted the plain way."""

    def write(root: Path, id: str) -> Path:
        instruction, labels = TASKS[id]
        manifest = Manifest(
            id=id, title=id.title(), kind="lora", instructions=(instruction,),
            labels=tuple(Label(value=label) for label in labels),
            backbone=BackboneRef(id=tiny.id, fingerprint=tiny.fingerprint),
        )  # fmt: skip
        artefacts = Artefacts(
            embedder=tiny.fingerprint,
            instructions=tiny.embed([instruction]),
            choices=tiny.embed(list(labels)),
            centroids=tiny.embed([f"A text about {label}." for label in labels]),
            vectors={"gate": random_gates(tiny, id)},
        )
        write_expert(root, manifest, random_expert(tiny, id), artefacts)
        return root / id

    return write


@pytest.fixture
def library(tmp_path: Path, write_task: Callable[[Path, str], Path]) -> Path:
    """Experts `weather` and `mood`, and a folder `broken` whose weights were altered."""
    root = tmp_path / "library"
    root.mkdir()
    for id in ("weather", "mood"):
        write_task(root, id)
    broken = write_task(tmp_path / "elsewhere", "flight").rename(root / "broken")
    manifest = json.loads((broken / "expert.json").read_text())
    (broken / "expert.json").write_text(json.dumps({**manifest, "id": "broken"}))
    (broken / "adapter_model.safetensors").write_bytes(b"not what the manifest lists")
    return root


@pytest.fixture
def adapters(tmp_path: Path, write_task: Callable[[Path, str], Path]) -> Path:
    """The one root that adapters may be loaded from; it holds expert `flight`."""
    root = tmp_path / "adapters"
    write_task(root, "flight")
    return root


@pytest.fixture
def bare_adapter(adapters: Path) -> Callable[..., Path]:
    """Write `flight` as PEFT alone would: no manifest. `rename` moves it to a layer not there."""

    def write(*, rename: bool) -> Path:
        source, folder = adapters / "flight", adapters / "bare"
        folder.mkdir()
        (folder / "adapter_config.json").write_text((source / "adapter_config.json").read_text())
        tensors = load_file(source / "adapter_model.safetensors")
        if rename:
            tensors = {n.replace("layer.0", "layer.7"): t for n, t in tensors.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return write


@pytest.fixture
def engine(library: Path) -> Engine:
    return build_engine(Settings(backbone="tiny-random", library=library, threads=1))


@pytest.fixture
def service(engine: Engine) -> EngineService:
    return EngineService(engine, max_queue=1000, max_batch=16)


@pytest.fixture
def app(service: EngineService, adapters: Path) -> FastAPI:
    return create_app(service, adapter_roots=[adapters], bounds=Bounds(body_bytes=64 * 2**10))


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@pytest.fixture
def decision() -> dict[str, Any]:
    """A valid body of `/v1/decisions`."""
    question = {
        "type": "choice",
        "name": "sky",
        "instructions": "Say what the weather is like.",
        "choices": [{"value": "sunny"}, {"value": "rainy", "description": "water falls"}],
    }
    return {"model": "auto", "input": "Not a cloud to be seen.", "questions": [question]}
