"""Kind `lora` equals PEFT: reading what it wrote, writing what it reads, merging as it adds."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn

from experts.backbones import TextEncoder
from experts.backbones.tiny import tiny_encoder
from experts.kinds import KINDS, Adapter
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.weights import ExpertWeights

EXACT = {"rtol": 1e-9, "atol": 1e-9}
SINGLE = {"rtol": 1e-5, "atol": 1e-5}
LORA = KINDS["lora"]
MODULES = ["query", "key", "value", "dense"]

Make = Callable[..., ExpertWeights]
Save = Callable[..., Path]
Twin = Callable[[peft.PeftModel], TextEncoder]

SHAPES = {
    "every linear layer": peft.LoraConfig(r=4, lora_alpha=8, target_modules=MODULES),
    "PEFT's all-linear": peft.LoraConfig(r=3, lora_alpha=5, target_modules="all-linear"),
    "rank 1": peft.LoraConfig(r=1, lora_alpha=1, target_modules=["query"]),
    "rank wider than the site": peft.LoraConfig(r=40, target_modules=["value"]),
    "patterns by name": peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=MODULES,
        rank_pattern={"query": 2, "intermediate.dense": 7},
        alpha_pattern={"query": 3, "attention.output.dense": 1},
    ),
    "patterns by regular expression": peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=MODULES,
        rank_pattern={r"layer\.0\..*": 6, r"^encoder\.layer\.1\.attention\.self\.(key|value)": 2},
        alpha_pattern={r".*\.1\..*dense": 9, r"layer\.0\.attention\.self\.query": 2},
    ),
    "rsLoRA": peft.LoraConfig(
        r=9, lora_alpha=4, use_rslora=True, target_modules=MODULES, rank_pattern={"key": 4}
    ),
    "one layer": peft.LoraConfig(r=4, target_modules=MODULES, layers_to_transform=[1]),
    "one layer of a pattern": peft.LoraConfig(
        r=4, target_modules=["query"], layers_to_transform=0, layers_pattern="layer"
    ),
    "a regular expression": peft.LoraConfig(r=4, target_modules=r".*\.0\..*(query|output\.dense)"),
    "excluded modules": peft.LoraConfig(
        r=4, target_modules=["query", "value"], exclude_modules=r".*\.1\.attention.*"
    ),
    "gaussian, with dropout": peft.LoraConfig(
        r=4, target_modules=["query"], init_lora_weights="gaussian", lora_dropout=0.5
    ),
}  # fmt: skip


def alone(encoder: TextEncoder, expert: ExpertWeights, rows: list[list[int]]) -> Tensor:
    """Pooled states with one expert at weight 1."""
    mix = build_mix([RowMix.of({expert.id: 1.0})] * len(rows), [stack_experts([expert])])
    return encoder.run(rows, mix)


def delta(expert: ExpertWeights, site: str) -> Tensor:
    """What the expert adds to the site's weight matrix (O, D)."""
    return (expert.sites[site]["A"].T @ expert.sites[site]["B"]).T


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_one_expert_at_weight_1_is_the_adapter_in_peft(
    config: peft.LoraConfig,
    make_peft: Callable[..., Any],
    read: Make,
    encoder64: TextEncoder,
    rows: list[list[int]],
) -> None:
    made = make_peft(copy.deepcopy(config))
    expert = read(made.adapter)
    ours, theirs = alone(encoder64, expert, rows), made.twin.run(rows)
    torch.testing.assert_close(ours, theirs, **EXACT)
    assert (ours - encoder64.run(rows)).abs().max() > 1e-3
    held = {
        name.removesuffix(".lora_A.weight") for name in made.adapter.tensors if "lora_A" in name
    }
    assert len(expert.sites) + len(expert.inert) == len(held)


def test_what_is_written_loads_in_peft(
    make_expert: Make,
    read: Make,
    encoder64: TextEncoder,
    rows: list[list[int]],
    save: Save,
    twin_of: Twin,
) -> None:
    ranks = {site: 2 + i % 3 for i, site in enumerate(encoder64.sites) if i % 4}
    expert = make_expert("lora", "written", ranks)
    folder = save(LORA.write(expert), "written")
    model = peft.PeftModel.from_pretrained(copy.deepcopy(encoder64.model), folder).eval()
    ours = alone(encoder64, expert, rows)
    torch.testing.assert_close(ours, twin_of(model).run(rows), **EXACT)
    again = read(LORA.write(expert), "written")
    assert again.sites.keys() == expert.sites.keys()
    for site, parts in expert.sites.items():
        assert all(torch.equal(again.sites[site][part], t) for part, t in parts.items())


def test_a_pooler_loads_and_is_listed_as_without_effect(
    make_peft: Callable[..., Any],
    read: Make,
) -> None:
    expert = read(make_peft(peft.LoraConfig(target_modules=["query", "pooler.dense"])).adapter)
    assert expert.inert == ("pooler.dense",)
    assert "pooler.dense" not in expert.sites


WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


@pytest.fixture
def three(make_expert: Make) -> list[ExpertWeights]:
    """Three experts of different ranks."""
    return [make_expert("lora", id, rank) for id, rank in (("a", 2), ("b", 5), ("c", 3))]


def test_merging_is_the_weighted_sum_of_the_deltas(
    three: list[ExpertWeights], encoder64: TextEncoder, rows: list[list[int]]
) -> None:
    changed = copy.deepcopy(encoder64.model)
    with torch.no_grad():
        for site in three[0].sites:
            layer = changed.get_submodule(site)
            assert isinstance(layer, nn.Linear)
            layer.weight += sum(
                w * delta(e, site) for e, w in zip(three, WEIGHTS.values(), strict=True)
            )
    expected = TextEncoder("dense", changed, encoder64.tokenizer, encoder64.pooling, 128).run(rows)
    mix = build_mix([RowMix.of(WEIGHTS)] * len(rows), [stack_experts(three)])
    torch.testing.assert_close(encoder64.run(rows, mix), expected, **EXACT)
    merged = LORA.merge(three, list(WEIGHTS.values()))
    torch.testing.assert_close(alone(encoder64, merged, rows), expected, **EXACT)


@pytest.fixture
def three_in_peft(three: list[ExpertWeights], encoder64: TextEncoder, save: Save) -> peft.PeftModel:
    """The same three, loaded by PEFT."""
    folders = {e.id: save(LORA.write(e), e.id) for e in three}
    base = copy.deepcopy(encoder64.model)
    model = peft.PeftModel.from_pretrained(base, folders.pop("a"), adapter_name="a")
    for id, folder in folders.items():
        model.load_adapter(folder, id)
    return model.eval()


def test_merging_is_what_peft_adds_by_cat(
    three: list[ExpertWeights],
    three_in_peft: peft.PeftModel,
    twin_of: Twin,
    encoder64: TextEncoder,
    rows: list[list[int]],
) -> None:
    model = three_in_peft
    model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "sum", "cat")
    model.set_adapter("sum")
    merged = LORA.merge(three, list(WEIGHTS.values()))
    for site in merged.sites:
        theirs = model.get_base_model().get_submodule(site).get_delta_weight("sum")
        torch.testing.assert_close(delta(merged, site), theirs, **EXACT)
    expected = twin_of(model).run(rows)
    torch.testing.assert_close(alone(encoder64, merged, rows), expected, **EXACT)


def single(adapter: Adapter) -> Adapter:
    """The adapter in float32."""
    return Adapter(adapter.config, {name: t.float() for name, t in adapter.tensors.items()})


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_one_expert_is_the_adapter_in_peft_in_float32(
    config: peft.LoraConfig, make_peft: Callable[..., Any], read: Make, rows: list[list[int]]
) -> None:
    made = make_peft(copy.deepcopy(config))
    made.twin.model.float()
    ours = alone(tiny_encoder(), read(single(made.adapter)), rows)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, made.twin.run(rows), **SINGLE)


def test_merging_is_what_peft_adds_in_float32(
    three: list[ExpertWeights],
    three_in_peft: peft.PeftModel,
    read: Make,
    twin_of: Twin,
    rows: list[list[int]],
) -> None:
    model = three_in_peft.float()
    model.add_weighted_adapter(list(WEIGHTS), list(WEIGHTS.values()), "sum", "cat")
    model.set_adapter("sum")
    expected = twin_of(model).run(rows)
    experts = [read(single(LORA.write(e)), e.id) for e in three]
    mix = build_mix([RowMix.of(WEIGHTS)] * len(rows), [stack_experts(experts)])
    ours = tiny_encoder().run(rows, mix)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, expected, **SINGLE)
    merged = alone(tiny_encoder(), LORA.merge(experts, list(WEIGHTS.values())), rows)
    torch.testing.assert_close(merged, expected, **SINGLE)


def test_averaging_the_factors_apart_is_something_else(
    make_expert: Make, encoder64: TextEncoder, save: Save
) -> None:
    """PEFT's `linear`: sqrt(w) on both factors leaves the cross terms sqrt(w_a w_b) A_a B_b."""
    pair = [make_expert("lora", id, 4) for id in ("a", "b")]
    folders = [save(LORA.write(e), e.id) for e in pair]
    base = copy.deepcopy(encoder64.model)
    model = peft.PeftModel.from_pretrained(base, folders[0], adapter_name="a")
    model.load_adapter(folders[1], "b")
    model.add_weighted_adapter(["a", "b"], [0.5, 0.5], "mean", "linear")
    merged = LORA.merge(pair, [0.5, 0.5])
    for site in merged.sites:
        ours = delta(merged, site)
        theirs = model.get_base_model().get_submodule(site).get_delta_weight("mean")
        cross = sum(
            0.5 * (a.sites[site]["A"].T @ b.sites[site]["B"]).T
            for a, b in (pair, pair[::-1])
        )  # fmt: skip
        torch.testing.assert_close(theirs, ours + cross, rtol=1e-6, atol=1e-6)
        assert (theirs - ours).norm() > 0.5 * ours.norm()


def test_an_expert_that_lacks_a_site_adds_nothing_there(
    make_expert: Make,
) -> None:
    here, there = "encoder.layer.0.attention.self.query", "encoder.layer.1.output.dense"
    pair = [make_expert("lora", "a", {here: 2}), make_expert("lora", "b", {there: 3})]
    stack = stack_experts(pair)
    assert stack.sites[here]["A"][1].abs().sum() == 0
    merged = LORA.merge(pair, [0.25, 0.75])
    torch.testing.assert_close(delta(merged, here), 0.25 * delta(pair[0], here), **EXACT)
    torch.testing.assert_close(delta(merged, there), 0.75 * delta(pair[1], there), **EXACT)


def test_a_fresh_expert_has_no_effect(encoder64: TextEncoder, rows: list[list[int]]) -> None:
    targets = LORA.target_sites(encoder64.sites.values())
    fresh = LORA.initial(targets, rank=4, generator=torch.Generator().manual_seed(0))
    sites = {site: {p: t.double() for p, t in parts.items()} for site, parts in fresh.items()}
    expert = ExpertWeights("fresh", "lora", LORA.group(sites), sites)
    assert torch.equal(alone(encoder64, expert, rows), encoder64.run(rows))
    assert all(t["A"].abs().min() > 0 for t in expert.sites.values())
    assert not any(site.name.startswith("pooler") for site in targets)
