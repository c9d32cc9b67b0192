"""Libraries whose experts carry tags, servers over them, and servers that write."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest
import torch

from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.kinds import KINDS
from experts.manifest import BackboneRef, Label, Manifest
from experts.weights import ExpertWeights
from experts.writing import write_expert
from server.access.keyfile import KeyStore
from server.app import create_app
from server.build import build_engine
from server.engine.service import EngineService
from server.settings import Settings
from tests.server.api.writing_material import writing_server

Tags = Mapping[str, Sequence[str]]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts `p0` to `p6`, each with words of its own; the last two are bottleneck adapters."""
    root, backbone = tmp_path_factory.mktemp("pool"), tiny_encoder()
    for i in range(7):
        _write(root, backbone, f"p{i}", "bottleneck" if i > 4 else "lora")
    return root


def _write(root: Path, backbone: TextEncoder, id: str, kind_name: str) -> None:
    kind, rng = KINDS[kind_name], torch.Generator().manual_seed(sum(map(ord, id)))
    sites = {
        site: {part: torch.randn(t.shape, generator=rng) * 0.2 for part, t in parts.items()}
        for site, parts in kind.initial(
            kind.target_sites(backbone.sites.values()), rank=4, generator=rng
        ).items()
    }
    gates = {s: torch.randn(backbone.sites[s].in_features, generator=rng) for s in sites}
    labels = [f"{word}{id}" for word in ("labelone", "labeltwo")]
    manifest = Manifest(
        id=id, title=f"title{id}", kind=kind_name, instructions=(f"Do the work of task{id}.",),
        labels=tuple(Label(value=label) for label in labels),
        backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
    )  # fmt: skip
    weights = ExpertWeights(id, kind_name, kind.group(sites), sites)
    artefacts = Artefacts(
        embedder=backbone.fingerprint,
        instructions=backbone.embed(manifest.instructions),
        choices=backbone.embed(labels),
        centroids=backbone.halfway(
            backbone.features([f"A text about {label}." for label in labels])
        ),
        vectors={"gate": gates},
    )
    write_expert(root, manifest, weights, artefacts)


@pytest.fixture(scope="session")
def tagged_at(pool: Path) -> Callable[..., Path]:
    """A library of some of the pool: `tagged_at(root, {"p0": ["team-a"], "p1": []})`."""

    def make(root: Path, tags: Tags, aliases: Mapping[str, str] | None = None) -> Path:
        folder = root / "library"
        for id, carried in tags.items():
            (folder / id).mkdir(parents=True)
            for file in (pool / id).iterdir():
                (folder / id / file.name).hardlink_to(file)
            said = json.loads((pool / id / "expert.json").read_text())
            (folder / id / "expert.json").unlink()  # the link: the pool keeps its own
            text = json.dumps({**said, "tags": list(carried)})
            (folder / id / "expert.json").write_text(text)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "aliases.json").write_text(json.dumps(dict(aliases or {})))
        return folder

    return make


@pytest.fixture
def tagged(tagged_at: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`tagged_at` in a folder of the test's own."""
    return partial(tagged_at, tmp_path)


@asynccontextmanager
async def serving(
    library: Path, roots: Sequence[Path] = (), keys: KeyStore | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server over a library."""
    engine = build_engine(Settings(backbone="tiny-random", library=library, threads=1))
    app = create_app(EngineService(engine), adapter_roots=roots, keys=keys)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@pytest.fixture(scope="session")
def serve() -> Callable[..., object]:
    """`async with serve(library) as client`."""
    return serving


@pytest.fixture(params=["causal", "seq2seq"])
async def writer(request, tmp_path) -> AsyncIterator[httpx.AsyncClient]:
    async with writing_server(request.param, tmp_path) as client:
        yield client


@pytest.fixture
async def causal(tmp_path) -> AsyncIterator[httpx.AsyncClient]:
    async with writing_server("causal", tmp_path) as client:
        yield client
