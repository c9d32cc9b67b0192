"""Real PEFT adapters of the tiny backbone, in file form: the reference of the kinds' tests."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from experts.backbones import TextEncoder
from experts.backbones.text_encoder import Pooling
from experts.host import HostExpert
from experts.kinds import Adapter, kind_of
from experts.weights import ExpertWeights


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter that PEFT wrote: its files, and the backbone with PEFT's own layers in it."""

    adapter: Adapter
    twin: TextEncoder


def read_adapter(folder: Path) -> Adapter:
    """An adapter as it lies on disk."""
    config = json.loads((folder / "adapter_config.json").read_text())
    return Adapter(config, load_file(folder / "adapter_model.safetensors"))


@pytest.fixture
def save(tmp_path: Path) -> Callable[[Adapter, str], Path]:
    """Write the two files that PEFT loads: `save(adapter, folder_name)`."""

    def writer(adapter: Adapter, name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(dict(adapter.config)))
        save_file(dict(adapter.tensors), folder / "adapter_model.safetensors")
        return folder

    return writer


@pytest.fixture
def twin_of(encoder64: TextEncoder) -> Callable[[peft.PeftModel], TextEncoder]:
    """The same pooling around the model that PEFT changed."""

    def twin(model: peft.PeftModel) -> TextEncoder:
        base = model.eval().get_base_model()
        return TextEncoder("twin", base, encoder64.tokenizer, Pooling(), 128)

    return twin


@pytest.fixture
def make_peft(
    encoder64: TextEncoder, twin_of: Callable[..., TextEncoder], tmp_path: Path
) -> Callable[..., PeftAdapter]:
    """Build, randomise and save an adapter with PEFT: `make_peft(peft.LoraConfig(...))`."""

    def make(config: peft.PeftConfig, seed: int = 0) -> PeftAdapter:
        model = peft.get_peft_model(copy.deepcopy(encoder64.model), config)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".default" in name:
                    drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.copy_(drawn * 0.3)
        folder = tmp_path / f"peft-{seed}"
        model.save_pretrained(folder)
        return PeftAdapter(read_adapter(folder), twin_of(model))

    return make


@pytest.fixture
def read(encoder64: TextEncoder) -> Callable[..., ExpertWeights]:
    """Bring an adapter to the tiny backbone, as its config's kind, the way it is served."""

    def reader(adapter: Adapter, id: str = "expert") -> ExpertWeights:
        fitted = kind_of(adapter).fit(adapter, encoder64.sites, id)
        host = HostExpert.of(fitted.expert, fitted.scales, {})
        return host.materialise(host.sites.buffer.dtype, encoder64.device)

    return reader
