"""The console script run in this process, far from the developer's own settings."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.kinds import KINDS
from experts.manifest import BackboneRef, Label, Manifest
from experts.weights import ExpertWeights
from experts.writing import write_expert
from server.cli import app, common

Run = Callable[..., Result]


@pytest.fixture
def own_logs() -> Iterator[None]:
    """`serve` sends the loggers to a stream that is closed when the command has ended."""
    loggers = [
        logging.getLogger(name)
        for name in ("sailplane", "sailplane.access", "bitsandbytes", "nicegui", "opentelemetry")
    ]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    yield
    for each, (handlers, level, propagate) in zip(loggers, before, strict=True):
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_logs: None) -> Run:
    """`run("config", "--port", "1")`, in a folder of its own and a terminal of 200 columns."""
    for key in [k for k in os.environ if k.startswith("SAILPLANE_")]:
        monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for console in (common.out, common.notes):  # they may know a width since they were made
        monkeypatch.setattr(console, "width", 200)
    return lambda *arguments, **more: CliRunner().invoke(app, list(arguments), **more)


@pytest.fixture(scope="session")
def backbone() -> TextEncoder:
    return tiny_encoder()


@pytest.fixture
def library(backbone: TextEncoder, tmp_path: Path) -> Path:
    """A library of two LoRA experts for `tiny-random`; `weather` has routing artefacts."""
    root = tmp_path / "library"
    write(root, "mood", backbone)
    generator = torch.Generator().manual_seed(0)
    instruction_ID = torch.nn.functional.normalize(torch.randn(2, 32, generator=generator))
    write(root, "weather", backbone, Artefacts(backbone.fingerprint, instruction_ID))
    return root


def write(root: Path, id: str, backbone: TextEncoder, artefacts: Artefacts | None = None) -> None:
    lora = KINDS["lora"]
    sites = lora.target_sites(backbone.sites.values())
    tensors = lora.initial(sites, rank=2, generator=torch.Generator().manual_seed(1))
    manifest = Manifest(
        id=id, title=f"About {id}", kind="lora", labels=(Label(value="yes"), Label(value="no")),
        backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
        provenance={"licence": "CC0"},
    )  # fmt: skip
    write_expert(root, manifest, ExpertWeights(id, "lora", lora.group(tensors), tensors), artefacts)
