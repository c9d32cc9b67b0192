"""Real adapters of PEFT, from its folder through the library: as in PEFT, or refused with a why."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import peft
import pytest
import torch

from experts.backbones import TextEncoder
from experts.backbones.text_encoder import Pooling
from experts.backbones.tiny import tiny_encoder
from experts.errors import MismatchedExpert, UnsupportedExpert
from experts.kinds import KINDS, Adapter, kind_of
from experts.kinds.lora import HARMLESS
from experts.library import Library
from experts.loader import load_expert
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from tests.experts.peft_material import (
    REFUSED,
    SERVED,
    Config,
    change_config,
    lora,
    make,
    make_converted,
    store_as,
)

EXACT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture
def library(tmp_path: Path, encoder64: TextEncoder) -> Library:
    return Library.open(tmp_path / "library", fingerprint=encoder64.fingerprint)


def served(
    library: Library, folder: Path, encoder: TextEncoder, rows: list[list[int]]
) -> torch.Tensor:
    """Pooled states of the library's expert, once it is added from the folder."""
    entry = library.add(folder, "made", sites=encoder.sites, roots=(folder,))
    assert not library.verify()["made"]
    expert = load_expert(entry, encoder.sites, dtype=torch.float64)
    mix = build_mix([RowMix.of({"made": 1.0})] * len(rows), [stack_experts([expert])])
    return encoder.run(rows, mix)


def in_peft(model: peft.PeftModel, encoder: TextEncoder, rows: list[list[int]]) -> torch.Tensor:
    base = model.eval().get_base_model()
    return TextEncoder("twin", base, encoder.tokenizer, Pooling(), 128).run(rows)


def reloaded(folder: Path) -> peft.PeftModel:
    """The folder as PEFT loads it."""
    return peft.PeftModel.from_pretrained(tiny_encoder(dtype=torch.float64).model, folder)


RARE = {f"rank {r}" for r in range(2, 16)}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, id=name, marks=[pytest.mark.slow] if name in RARE else [])
        for name, config in SERVED.items()
    ],
)
def test_what_is_served_acts_as_in_peft(
    config: Config, library: Library, encoder64: TextEncoder, rows: list[list[int]], tmp_path: Path
) -> None:
    model = make(tmp_path / "made", config)
    ours = served(library, tmp_path / "made", encoder64, rows)
    torch.testing.assert_close(ours, in_peft(model, encoder64, rows), **EXACT)
    assert (ours - encoder64.run(rows)).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_files_of_any_type_act_as_peft_reads_them(
    dtype: torch.dtype, library: Library, encoder64: TextEncoder, rows: list[list[int]],
    tmp_path: Path,
) -> None:  # fmt: skip
    make(tmp_path / "made", lora(r=7, use_rslora=True, target_modules="all-linear"))
    store_as(tmp_path / "made", dtype)
    ours = served(library, tmp_path / "made", encoder64, rows)
    torch.testing.assert_close(ours, in_peft(reloaded(tmp_path / "made"), encoder64, rows), **EXACT)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_what_took_weights_from_the_backbone_is_served_once_converted(
    start: str, library: Library, encoder64: TextEncoder, rows: list[list[int]], tmp_path: Path
) -> None:
    """As the refusal of the unconverted one advises; the reference is the model it was made in."""
    model = make_converted(tmp_path / "made", start)
    ours = served(library, tmp_path / "made", encoder64, rows)
    in_it = in_peft(model, encoder64, rows).double()
    torch.testing.assert_close(ours, in_it, rtol=1e-5, atol=1e-5)
    theirs = in_peft(reloaded(tmp_path / "made"), encoder64, rows)
    torch.testing.assert_close(ours, theirs, **EXACT)
    assert (ours - encoder64.run(rows)).abs().max() > 1e-4


@pytest.mark.parametrize(
    "said",
    [
        {"fan_in_fan_out": True},
        {"inference_mode": False, "lora_dropout": 0.5, "revision": "main"},
        {"megatron_config": None, "a_field_of_tomorrow": None},
        {"auto_mapping": {"base_model_class": "BertModel", "parent_library": "elsewhere"}},
        {"peft_version": "0.1.0", "base_model_name_or_path": "/a/folder/of/someone"},
    ],
    ids=str,
)
def test_fields_that_change_nothing_are_no_reason_to_refuse(
    said: dict[str, object], library: Library, encoder64: TextEncoder, rows: list[list[int]],
    tmp_path: Path,
) -> None:  # fmt: skip
    """Also the ones that PEFT puts right by itself: `fan_in_fan_out` of a linear layer."""
    model = make(tmp_path / "made", lora(r=3))
    change_config(tmp_path / "made", **said)
    ours = served(library, tmp_path / "made", encoder64, rows)
    torch.testing.assert_close(ours, in_peft(model, encoder64, rows), **EXACT)


@pytest.mark.parametrize(("config", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_served_is_refused_with_the_reason(
    config: Config, why: str, library: Library, encoder64: TextEncoder, tmp_path: Path
) -> None:
    make(tmp_path / "made", config)
    with pytest.raises((UnsupportedExpert, MismatchedExpert), match=why):
        library.add(tmp_path / "made", "made", sites=encoder64.sites, roots=(tmp_path,))
    assert not library.entries
    assert not list(library.root.iterdir())


@pytest.mark.parametrize("kind", sorted({t.value for t in peft.PeftType} - {"LORA"}))
def test_every_other_type_that_peft_knows_is_refused_by_name(kind: str) -> None:
    with pytest.raises(UnsupportedExpert, match=f"{kind}.*is not served"):
        kind_of(Adapter({"peft_type": kind, "r": 8, "target_modules": ["query"]}, {}))


KNOWN = {*HARMLESS, "bias", "init_lora_weights"}


@pytest.mark.parametrize("field", sorted({f.name for f in fields(peft.LoraConfig)} - KNOWN))
def test_every_other_field_of_a_lora_config_is_refused_by_name(
    field: str, encoder64: TextEncoder
) -> None:
    """Also those of a PEFT to come: whatever could change the result is not ignored."""
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["query"], field: {"a": 1}}
    site = "base_model.model.encoder.layer.0.attention.self.query.lora"
    factors = {f"{site}_A.weight": torch.ones(2, 32), f"{site}_B.weight": torch.ones(32, 2)}
    with pytest.raises(UnsupportedExpert, match=field):
        KINDS["lora"].fit(Adapter(config, factors), encoder64.sites, "made")
