"""Routing artefacts that could stop the routing of all others are refused where they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experts.artefacts import Artefacts
from experts.entries import Entry
from experts.errors import CorruptExpert
from experts.manifest import Manifest
from experts.weights import ExpertWeights
from experts.writing import write_expert

FEATURES = 64


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (torch.zeros(0, FEATURES), "no mean"),
        (torch.full((1, FEATURES), 6e4), "no mean"),
        (torch.ones(FEATURES), "number of axes"),
    ],
)
def test_inputs_that_are_no_mean_of_features_are_refused(
    tmp_path: Path, make_expert: Callable[..., ExpertWeights], manifest_of: Callable[..., Manifest],
    artefacts: Artefacts, inputs: torch.Tensor, said: str,
) -> None:  # fmt: skip
    expert = make_expert("lora", "odd")
    told = replace(artefacts, inputs=inputs, seen=100)
    entry = write_expert(tmp_path, manifest_of("odd"), expert, told)
    with pytest.raises(CorruptExpert, match=said):
        Entry(entry.path, entry.manifest).read_artefacts()
