"""Tensors that the config does not target, which PEFT would ignore, are refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
from peft.tuners.lora import LoraLayer

from experts.backbones import TextEncoder
from experts.errors import MismatchedExpert, UnsupportedExpert
from experts.kinds import Adapter
from experts.weights import ExpertWeights

MODULES = ["query", "key", "value", "dense"]

Read = Callable[..., ExpertWeights]


@pytest.fixture
def whole(make_peft: Callable[..., Any]) -> Adapter:
    """An adapter that PEFT wrote, with tensors for every linear layer."""
    return make_peft(peft.LoraConfig(r=3, target_modules=MODULES)).adapter


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["query"]},
        {"target_modules": ["encoder.layer.1.output.dense", "self.value"]},
        {"target_modules": r".*\.(query|key|value)"},
        {"target_modules": r"encoder\.layer\.0\..*dense"},
        {"layers_to_transform": [1]},
        {"layers_to_transform": 0},
        {"layers_to_transform": [0, 1], "layers_pattern": ["layer"]},
        {"layers_to_transform": [0], "layers_pattern": "layer"},
        {"exclude_modules": ["query", "encoder.layer.1.intermediate.dense"]},
        {"exclude_modules": r".*\.0\..*"},
        {"target_modules": "all-linear", "exclude_modules": ["pooler.dense"]},
    ],
    ids=str,
)
def test_what_peft_would_ignore_is_refused(
    config: dict[str, object],
    whole: Adapter,
    encoder64: TextEncoder,
    save: Callable[[Adapter, str], Path],
    read: Read,
) -> None:
    adapter = Adapter({**whole.config, **config}, whole.tensors)
    base = copy.deepcopy(encoder64.model)
    model = peft.PeftModel.from_pretrained(base, save(adapter, "narrow")).get_base_model()
    used = {name for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    with pytest.raises(MismatchedExpert, match="not targeted by its config") as raised:
        read(adapter)
    assert set(raised.value.details["matched"]) == used
    assert set(raised.value.details["unmatched"]) == set(encoder64.sites) - used


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": "all-linear"},
        {"target_modules": "All-Linear"},
        {"target_modules": r".*(query|key|value|dense)"},
        {"target_modules": [*MODULES, "not_there"]},
        {"layers_to_transform": []},
        {"exclude_modules": []},
        {"base_model_name_or_path": "/elsewhere/another-name"},
    ],
    ids=str,
)
def test_what_peft_would_use_is_read(
    config: dict[str, object], whole: Adapter, encoder64: TextEncoder, read: Read
) -> None:
    expert = read(Adapter({**whole.config, **config}, whole.tensors))
    assert {*expert.sites, *expert.inert} == set(encoder64.sites)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"target_modules": None}, "target_modules is missing"),
        ({"target_modules": 7}, "target_modules is neither"),
        ({"target_modules": ["query", 7]}, "target_modules is neither"),
        ({"target_modules": ["a" * 10_000] * 10}, "list of a few texts"),
        ({"exclude_modules": {"query": 1}}, "exclude_modules is neither"),
        ({"target_modules": "all-linear", "layers_to_transform": [0]}, "need target_modules="),
        ({"target_modules": ".*dense", "layers_pattern": "layer"}, "need target_modules="),
        ({"layers_pattern": ["layer"]}, "needs layers_to_transform"),
        ({"layers_to_transform": [0], "layers_pattern": ["a"] * 101}, "more than 100"),
        ({"target_modules": "("}, "no regular expression"),
    ],
)
def test_targets_that_peft_itself_refuses_or_that_are_none(
    config: dict[str, object], reason: str, whole: Adapter, read: Read
) -> None:
    with pytest.raises(UnsupportedExpert, match=reason):
        read(Adapter({**whole.config, **config}, whole.tensors))
