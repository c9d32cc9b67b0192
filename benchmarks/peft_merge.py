"""Merging per sample as PEFT does it: `add_weighted_adapter`, run, delete."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from peft import PeftModel
from transformers import AutoModel

from experts.backbones.demo import demo_path
from experts.kinds import KINDS
from experts.weights import ExpertWeights

MERGED = "merged-for-one-sample"


class PeftMerge:
    """The demo backbone under PEFT, with every expert loaded."""

    def __init__(self, experts: Sequence[ExpertWeights]) -> None:
        base = AutoModel.from_pretrained(demo_path()).eval()
        first, *others = experts
        with tempfile.TemporaryDirectory() as temporary:
            root = Path(temporary)
            for expert in experts:
                _write(expert, root / expert.id)
            self.model = PeftModel.from_pretrained(base, root / first.id, adapter_name=first.id)
            for expert in others:
                self.model.load_adapter(root / expert.id, adapter_name=expert.id)
        self.model.eval()

    def run(self, row: Sequence[int], weights: Mapping[str, float], combination: str) -> None:
        """Merge these experts, run one sample, and forget the merge."""
        self.model.add_weighted_adapter(
            list(weights), list(weights.values()), MERGED, combination_type=combination
        )
        self.model.set_adapter(MERGED)
        self.model(input_ids=torch.tensor([list(row)]))
        self.model.delete_adapter(MERGED)


def _write(expert: ExpertWeights, folder: Path) -> None:
    adapter = KINDS[expert.kind].write(expert)
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(adapter.config), "utf-8")
    safetensors.torch.save_file(dict(adapter.tensors), folder / "adapter_model.safetensors")
