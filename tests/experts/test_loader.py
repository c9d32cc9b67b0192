"""What loads is the whole expert; anything less is refused with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch

from experts.backbones import TextEncoder
from experts.entries import CONFIG, ROUTING, WEIGHTS, Entry
from experts.errors import BadExpert, CorruptExpert, MismatchedExpert, UnsupportedExpert
from experts.loader import load_expert
from experts.weights import ExpertWeights

Stored = Callable[..., Entry]
Reseal = Callable[[Path], Entry]


@pytest.fixture
def load(encoder64: TextEncoder) -> Callable[..., ExpertWeights]:
    """Load an entry for the tiny backbone."""

    def loader(entry: Entry, dtype: torch.dtype = torch.float64) -> ExpertWeights:
        return load_expert(entry, encoder64.sites, dtype=dtype, device="cpu")

    return loader


def edit(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite a safetensors file after `change` has been at its tensors."""
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


def first(tensors: Mapping[str, torch.Tensor], ending: str) -> str:
    return next(name for name in sorted(tensors) if name.endswith(ending))


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_the_tensors_and_vectors_come_back(
    stored: Stored, load: Callable[..., ExpertWeights], make_expert: Callable, kind: str
) -> None:
    loaded = load(stored("tides", kind, dtype=torch.float64))
    written = make_expert(kind, "tides", vectors=("gate", "arrow"))
    assert (loaded.id, loaded.kind, loaded.group) == ("tides", kind, written.group)
    assert set(loaded.sites) == set(written.sites)
    for site, parts in written.sites.items():
        for part, tensor in parts.items():
            assert torch.equal(loaded.sites[site][part], tensor)
        assert torch.equal(loaded.vectors["gate"][site], written.vectors["gate"][site])
    assert loaded.vectors.keys() == ({"gate", "arrow"} if kind == "lora" else {"gate"})


def test_vectors_kept_in_short_are_written_out(
    stored: Stored, load: Callable[..., ExpertWeights], make_expert: Callable
) -> None:
    """Drawn at random, so that what comes back is their part in the span of A's rows."""
    loaded = load(stored("tides", dtype=torch.float64))
    drawn = make_expert("lora", "tides", vectors=("gate", "arrow")).vectors["arrow"]
    for site, v_D in drawn.items():
        A_RD = loaded.sites[site]["A"]
        within_D = A_RD.T @ torch.linalg.lstsq(A_RD.T, v_D).solution
        assert loaded.vectors["arrow"][site].shape == v_D.shape
        torch.testing.assert_close(
            loaded.vectors["arrow"][site], within_D / within_D.norm(), atol=1e-9, rtol=0
        )


def test_the_version_is_the_manifests(stored: Stored, load: Callable[..., ExpertWeights]) -> None:
    stored()
    assert load(stored()).version == 2


def test_half_precision_files_round_once(
    stored: Stored, load: Callable[..., ExpertWeights], make_expert: Callable
) -> None:
    entry = stored("tides", dtype=torch.float16)
    written = make_expert("lora", "tides")
    loaded = load(entry, torch.float32)
    for site, parts in written.sites.items():
        assert loaded.sites[site]["A"].dtype == torch.float32
        assert torch.equal(loaded.sites[site]["A"], parts["A"].half().float())


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, ROUTING])
def test_other_bytes_than_listed_are_refused(
    stored: Stored, load: Callable[..., ExpertWeights], name: str
) -> None:
    entry = stored()
    data = bytearray((entry.path / name).read_bytes())
    data[-2] ^= 1
    (entry.path / name).write_bytes(bytes(data))
    with pytest.raises(CorruptExpert, match=f"{name} is not the file"):
        load(entry)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, ROUTING])
def test_missing_and_truncated_files_are_refused(
    stored: Stored, reseal: Reseal, load: Callable[..., ExpertWeights], name: str
) -> None:
    entry = stored()
    (entry.path / name).write_bytes((entry.path / name).read_bytes()[:100])
    with pytest.raises(CorruptExpert, match=name):
        load(reseal(entry.path))
    (entry.path / name).unlink()
    with pytest.raises(CorruptExpert, match="cannot be read"):
        load(entry)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(
    stored: Stored, reseal: Reseal, load: Callable[..., ExpertWeights], value: float
) -> None:
    entry = stored()
    edit(entry.path / WEIGHTS, lambda t: t[first(t, "lora_A.weight")][0].fill_(value))
    with pytest.raises(CorruptExpert, match="NaN or infinity"):
        load(reseal(entry.path))


def test_values_that_overflow_the_compute_type_are_refused(
    stored: Stored, reseal: Reseal, load: Callable[..., ExpertWeights]
) -> None:
    entry = stored("tides", dtype=torch.float32)
    edit(entry.path / WEIGHTS, lambda t: t[first(t, "lora_B.weight")].fill_(1e6))
    sealed = reseal(entry.path)
    assert load(sealed, torch.float32).id == "tides"
    with pytest.raises(CorruptExpert, match="NaN or infinity"):
        load(sealed, torch.float16)


def test_a_mismatch_lists_both_sides(
    stored: Stored, reseal: Reseal, load: Callable[..., ExpertWeights]
) -> None:
    entry = stored()
    site = "encoder.layer.0.attention.self.query"
    edit(
        entry.path / WEIGHTS,
        lambda t: t.update({n.replace(site, "no.such.place"): t.pop(n)
                            for n in list(t) if site in n}),
    )  # fmt: skip
    with pytest.raises(MismatchedExpert) as caught:
        load(reseal(entry.path))
    assert caught.value.details["unmatched"] == ["no.such.place (no such site)"]
    matched = caught.value.details["matched"]
    assert isinstance(matched, list)
    assert "encoder.layer.1.attention.self.query" in matched


def test_vectors_that_fit_no_site_are_refused(
    stored: Stored, reseal: Reseal, load: Callable[..., ExpertWeights]
) -> None:
    entry = stored()
    name = "gate.encoder.layer.0.attention.self.query"
    edit(entry.path / ROUTING, lambda t: t.update({name: torch.ones(5), "arrow.x": torch.ones(5)}))
    with pytest.raises(MismatchedExpert, match="Routing vectors") as caught:
        load(reseal(entry.path))
    unmatched = caught.value.details["unmatched"]
    assert isinstance(unmatched, list)
    assert set(unmatched) == {name, "arrow.x"}


@pytest.mark.parametrize(
    ("kind", "numbers", "reason"),
    [("lora", 32, "32 numbers, expected 4"), ("lora", 0, "0 numbers, expected 4"),
     ("bottleneck", 4, "4 numbers, expected none")],
)  # fmt: skip
def test_coefficients_that_are_no_rank_of_the_expert_are_refused(
    stored: Stored, reseal: Reseal, load: Callable[..., ExpertWeights],
    kind: str, numbers: int, reason: str,
) -> None:  # fmt: skip
    """A whole vector, none, and a kind that has no such rows."""
    entry = stored(kind=kind)
    name = "arrow.encoder.layer.0.output.dense"
    edit(entry.path / ROUTING, lambda t: t.update({name: torch.ones(numbers)}))
    with pytest.raises(MismatchedExpert, match=f"{re.escape(name)} .{reason}") as caught:
        load(reseal(entry.path))
    assert caught.value.details["unmatched"] == [name]


def test_coefficients_of_a_site_that_the_expert_leaves_alone_are_refused(
    stored: Stored, reseal: Reseal, load: Callable[..., ExpertWeights]
) -> None:
    """There are no rows that they could belong to."""
    entry = stored()
    edit(entry.path / ROUTING, lambda t: t.update({"arrow.pooler.dense": torch.ones(4)}))
    with pytest.raises(MismatchedExpert, match="expected none"):
        load(reseal(entry.path))


@pytest.mark.parametrize(
    "change",
    [lambda t: t.update(instructions=torch.ones(3)),
     lambda t: t.update(choices=torch.ones(2, 7)),
     lambda t: t["choices"].fill_(float("nan"))],
)  # fmt: skip
def test_artefacts_of_the_wrong_form_are_refused(
    stored: Stored, reseal: Reseal, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    entry = stored()
    edit(entry.path / ROUTING, change)
    with pytest.raises(CorruptExpert, match=ROUTING):
        _ = reseal(entry.path).read_artefacts()


@pytest.mark.parametrize(
    "field",
    [
        {"alpha_pattern": "everything"}, {"alpha_pattern": {"(": 2}}, {"lora_alpha": "much"},
        {"lora_alpha": 1e999}, {"lora_alpha": [1]}, {"alpha_pattern": ["query"]},
        {"peft_type": "IA3"}, {"peft_type": 7}, {"use_dora": True}, {"bias": ["all"]},
    ],
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_refused(
    stored: Stored, reseal: Reseal, load: Callable[..., ExpertWeights], field: dict[str, object]
) -> None:
    entry = stored()
    config = json.loads((entry.path / CONFIG).read_text())
    (entry.path / CONFIG).write_text(json.dumps({**config, **field}))
    with pytest.raises(BadExpert):
        load(reseal(entry.path))


def test_rank_zero_is_refused(
    stored: Stored, reseal: Reseal, load: Callable[..., ExpertWeights]
) -> None:
    entry = stored()

    def flatten(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            tensors[name] = (tensor[:0] if "lora_A" in name else tensor[:, :0]).contiguous()

    edit(entry.path / WEIGHTS, flatten)
    with pytest.raises(BadExpert):
        load(reseal(entry.path))


def test_another_kind_than_the_manifest_says_is_refused(
    stored: Stored, edit_manifest: Callable[..., None], reseal: Reseal,
    load: Callable[..., ExpertWeights],
) -> None:  # fmt: skip
    entry = stored()
    edit_manifest(entry.path, kind="bottleneck")
    with pytest.raises(CorruptExpert, match="bottleneck"):
        load(reseal(entry.path))
    edit_manifest(entry.path, kind="lora")
    config = json.loads((entry.path / CONFIG).read_text())
    (entry.path / CONFIG).write_text(json.dumps({**config, "peft_type": "PROMPT_TUNING"}))
    with pytest.raises(UnsupportedExpert, match="PROMPT_TUNING"):
        load(reseal(entry.path))


def test_another_merge_group_than_the_manifest_says_is_refused(
    stored: Stored, edit_manifest: Callable[..., None], reseal: Reseal,
    load: Callable[..., ExpertWeights],
) -> None:  # fmt: skip
    entry = stored(kind="bottleneck")
    edit_manifest(entry.path, group="bottleneck/48/0")
    with pytest.raises(CorruptExpert, match="merge group 'bottleneck/48/0'"):
        load(reseal(entry.path))
    edit_manifest(entry.path, group=None)  # as older manifests
    assert load(reseal(entry.path)).kind == "bottleneck"
