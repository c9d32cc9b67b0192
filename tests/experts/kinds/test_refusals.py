"""What cannot be served is refused, with the reason and the lists of what matched and what not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from experts.errors import BadExpert, CorruptExpert, MismatchedExpert, UnsupportedExpert
from experts.kinds import KINDS, Adapter
from experts.kinds.names import PREFIX
from experts.weights import ExpertWeights

Read = Callable[..., ExpertWeights]
QUERY = "encoder.layer.0.attention.self.query"
TARGETS = {"target_modules": ["query"]}


@pytest.fixture
def lora(make_expert: Callable[..., ExpertWeights]) -> Adapter:
    """A sound LoRA adapter of every site."""
    return KINDS["lora"].write(make_expert("lora", "sound"))


@pytest.fixture
def bottleneck(make_expert: Callable[..., ExpertWeights]) -> Adapter:
    """A sound bottleneck adapter."""
    return KINDS["bottleneck"].write(make_expert("bottleneck", "sound"))


def changed(
    adapter: Adapter, tensors: dict[str, Tensor] | None = None, **config: object
) -> Adapter:
    """The adapter with some tensors and config fields replaced."""
    return Adapter({**adapter.config, **config}, {**adapter.tensors, **(tensors or {})})


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (peft.LoraConfig(use_dora=True, **TARGETS), "use_dora"),
        (peft.LoraConfig(lora_bias=True, **TARGETS), "lora_bias"),
        (peft.LoraConfig(bias="all", **TARGETS), "bias='all'"),
        (peft.LoraConfig(bias="lora_only", **TARGETS), "bias='lora_only'"),
        (peft.LoraConfig(modules_to_save=["pooler"], **TARGETS), "modules_to_save"),
        (peft.LoraConfig(trainable_token_indices=[1, 2], **TARGETS), "trainable_token_indices"),
        (peft.IA3Config(feedforward_modules=[], **TARGETS), "IA3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_peft_can_do_and_we_cannot(
    config: peft.PeftConfig, reason: str, make_peft: Callable[..., Any], read: Read
) -> None:
    made = make_peft(config)
    with pytest.raises(UnsupportedExpert, match=reason):
        read(made.adapter)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"init_lora_weights": "pissa"}, "pissa.*backbone's own weights"),
        ({"init_lora_weights": "pissa_niter_2"}, "backbone's own weights"),
        ({"init_lora_weights": "olora"}, "backbone's own weights"),
        ({"init_lora_weights": "something new"}, "something new"),
        ({"lora_alpha": "8"}, "not a finite number"),
        ({"lora_alpha": math.nan}, "not a finite number"),
        ({"alpha_pattern": ["query"]}, "alpha_pattern"),
        ({"alpha_pattern": {"(": 3}}, "regular expression"),
        ({"peft_type": None}, "peft_type=None"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
    ],
)
def test_configs_that_make_no_sense(
    config: dict[str, object], reason: str, lora: Adapter, read: Read
) -> None:
    with pytest.raises(UnsupportedExpert, match=reason):
        read(changed(lora, **config))


def test_names_that_match_no_site_come_with_both_lists(lora: Adapter, read: Read) -> None:
    stray = {f"{PREFIX}decoder.wi.lora_{part}.weight": torch.ones(4, 32) for part in "AB"}
    with pytest.raises(MismatchedExpert, match="no such site") as raised:
        read(changed(lora, stray))
    assert raised.value.details["unmatched"] == ["decoder.wi (no such site)"]
    assert QUERY in raised.value.details["matched"]
    assert len(raised.value.details["matched"]) == 12


@pytest.mark.parametrize(
    "name",
    [
        f"{PREFIX}{QUERY}.lora_embedding_A",
        f"{PREFIX}{QUERY}.lora_B.bias",
        f"{PREFIX}{QUERY}.lora_magnitude_vector",
        f"{QUERY}.lora_A.weight",
        "encoder.layer.0.attention.self.query.bias",
        ".lora_A.weight",
    ],
)
def test_tensors_that_are_no_factor_or_a_second_one(name: str, lora: Adapter, read: Read) -> None:
    with pytest.raises(MismatchedExpert) as raised:
        read(changed(lora, {name: torch.ones(4, 32)}))
    assert any(name.removeprefix(PREFIX)[:20] in u for u in raised.value.details["unmatched"])


@pytest.mark.parametrize(
    ("part", "shape", "reason"),
    [
        ("A", (4, 31), "A is 4 x 31, expected any x 32"),
        ("A", (4,), "A is 4, expected"),
        ("B", (33, 4), "B is 33 x 4"),
        ("A", (5, 32), "ranks 5 and 4"),
    ],
)
def test_wrong_shapes(
    part: str, shape: tuple[int, ...], reason: str, lora: Adapter, read: Read
) -> None:
    tensor = {f"{PREFIX}{QUERY}.lora_{part}.weight": torch.ones(shape)}
    with pytest.raises(MismatchedExpert, match=reason):
        read(changed(lora, tensor))


def test_a_rank_of_zero(read: Read) -> None:
    factors = {
        f"{PREFIX}{QUERY}.lora_A.weight": torch.ones(0, 32),
        f"{PREFIX}{QUERY}.lora_B.weight": torch.ones(32, 0),
    }
    with pytest.raises(MismatchedExpert, match="ranks 0 and 0"):
        read(Adapter({"peft_type": "LORA", "r": 0}, factors))


def test_half_a_pair(lora: Adapter, read: Read) -> None:
    missing = f"{PREFIX}{QUERY}.lora_B.weight"
    tensors = {n: t for n, t in lora.tensors.items() if n != missing}
    with pytest.raises(MismatchedExpert, match="lacks B"):
        read(Adapter(lora.config, tensors))


def test_an_adapter_without_effect_is_not_served_as_the_bare_backbone(read: Read) -> None:
    pooler = {f"{PREFIX}pooler.dense.lora_{part}.weight": torch.ones(s)
              for part, s in (("A", (2, 32)), ("B", (32, 2)))}  # fmt: skip
    with pytest.raises(MismatchedExpert, match="reach"):
        read(Adapter({"peft_type": "LORA"}, pooler))
    with pytest.raises(MismatchedExpert, match="no modules"):
        read(Adapter({"peft_type": "LORA"}, {}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("site", [QUERY, "pooler.dense"])
def test_numbers_that_are_none(value: float, site: str, lora: Adapter, read: Read) -> None:
    bad = {f"{PREFIX}{site}.lora_A.weight": torch.full((4, 32), value),
           f"{PREFIX}{site}.lora_B.weight": torch.ones(32, 4)}  # fmt: skip
    with pytest.raises(CorruptExpert, match="NaN") as raised:
        read(changed(lora, bad))
    assert raised.value.details["tensors"] == [f"{site}.A"]


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float8_e4m3fn])
def test_types_that_are_no_plain_floats(dtype: torch.dtype, lora: Adapter, read: Read) -> None:
    bad = {f"{PREFIX}{QUERY}.lora_A.weight": torch.ones(4, 32).to(dtype)}
    with pytest.raises(CorruptExpert, match="floating"):
        read(changed(lora, bad))


OUTPUT = "encoder.layer.0.output.dense"


@pytest.mark.parametrize(
    ("tensors", "config", "error", "reason"),
    [
        ({}, {"activation": "gelu"}, UnsupportedExpert, "gelu"),
        ({}, {"scaling": 2.0}, UnsupportedExpert, "scaling"),
        ({f"{QUERY}.down.weight": (4, 32)}, {}, MismatchedExpert, "no such site"),
        ({f"{OUTPUT}.down.weight": (4, 31)}, {}, MismatchedExpert, "D is 4 x 31"),
        ({f"{OUTPUT}.down.bias": (5,)}, {}, MismatchedExpert, "widths"),
        ({f"{OUTPUT}.norm.weight": (32,)}, {}, MismatchedExpert, "norm.weight"),
    ],
)
def test_bottleneck_adapters_that_do_not_fit(
    tensors: dict[str, tuple[int, ...]],
    config: dict[str, object],
    error: type[BadExpert],
    reason: str,
    bottleneck: Adapter,
    read: Read,
) -> None:
    extra = {PREFIX + name: torch.ones(shape) for name, shape in tensors.items()}
    with pytest.raises(error, match=reason):
        read(changed(bottleneck, extra, **config))


def test_bottleneck_nan(bottleneck: Adapter, read: Read) -> None:
    with pytest.raises(CorruptExpert, match="NaN"):
        read(changed(bottleneck, {f"{PREFIX}{OUTPUT}.up.bias": torch.full((32,), math.nan)}))
