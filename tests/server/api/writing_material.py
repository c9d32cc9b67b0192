"""Servers on the tiny language models, over three random experts, and what they are asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from experts.artefacts import Artefacts
from experts.backbones import LanguageModel
from experts.kinds import KINDS
from experts.manifest import BackboneRef, Manifest
from experts.weights import ExpertWeights
from experts.writing import write_expert
from routers.fitting.arrow import arrow_coefficients
from server.api.bounds import Bounds
from server.app import create_app
from server.build import build_engine
from server.engine.run import Engine
from server.engine.service import EngineService
from server.settings import Settings
from tests.language_models import FAMILIES

COMPLETE, CHAT = "/v1/completions", "/v1/chat/completions"
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


@asynccontextmanager
async def writing_server(
    family: str, folder: Path, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server; the server is `client.service`."""
    service = EngineService(engine_of(family, folder / "library", **settings), max_queue=100)
    app = create_app(service, bounds=Bounds(write_timeout_ms=60_000))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        client.service = service  # type: ignore[attr-defined]
        yield client


def prompt(text: str = "A word.", **more: Any) -> dict[str, Any]:
    return {"model": "auto", "prompt": text, "max_tokens": 12, "temperature": 0, **more}


def chat(*said: tuple[str, str], **more: Any) -> dict[str, Any]:
    messages = [{"role": role, "content": text} for role, text in said or [("user", "A word.")]]
    return {"model": "auto", "messages": messages, "max_completion_tokens": 12, "temperature": 0,
            **more}  # fmt: skip


async def ok(client, route: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(route, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def chunks(client, route: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = await client.post(route, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
