"""A merged expert on the real path: PEFT's own merge, a library, and the engine that serves."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import save_file

from experts.backbones import TextEncoder
from experts.entries import ROUTING, Entry
from experts.errors import BadExpert, DuplicateExpert
from experts.kinds import KINDS
from experts.library import Library
from experts.loader import load_expert
from experts.merging import apply, make_plan, merge, validate
from experts.merging.adding import add_merged
from experts.merging.deltas import delta
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.weights import ExpertWeights

EXACT = {"rtol": 1e-9, "atol": 1e-9}
IDS = ["a", "b", "c"]
Make = Callable[..., ExpertWeights]


@pytest.fixture
def three(make_expert: Make) -> list[ExpertWeights]:
    """Experts of different ranks; the last lacks some sites."""
    a, b, c = (make_expert("lora", id, rank) for id, rank in zip(IDS, (2, 5, 3), strict=True))
    sites = {site: t for i, (site, t) in enumerate(c.sites.items()) if i % 3}
    return [a, b, ExpertWeights(c.id, c.kind, c.group, sites)]


@pytest.fixture
def in_peft(three: list[ExpertWeights], encoder64: TextEncoder, tmp_path: Path) -> peft.PeftModel:
    """The same three, loaded by PEFT."""
    folders: dict[str, Path] = {}
    for expert in three:
        adapter = KINDS["lora"].write(expert)
        folder = folders[expert.id] = tmp_path / expert.id
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(dict(adapter.config)))
        save_file(dict(adapter.tensors), folder / "adapter_model.safetensors")
    base = copy.deepcopy(encoder64.model)
    model = peft.PeftModel.from_pretrained(base, folders.pop("a"), adapter_name="a")
    for id, folder in folders.items():
        model.load_adapter(folder, id)
    return model.eval()


@pytest.mark.parametrize(
    ("rule", "weights"), [("average", [1 / 3] * 3), ("task_arithmetic", [0.4] * 3)]
)
def test_sums_of_deltas_are_what_peft_adds_by_cat(three, in_peft, rule, weights):
    in_peft.add_weighted_adapter(IDS, weights, "sum", "cat")
    made = merge(rule, three).expert
    for site in made.sites:
        theirs = in_peft.get_base_model().get_submodule(site).get_delta_weight("sum")
        torch.testing.assert_close(delta(made.sites[site]).T, theirs, **EXACT)


def test_ties_of_one_site_is_what_peft_adds_by_ties_svd(make_expert, in_peft, three):
    # With one site the whole vector is one tensor, and PEFT's trimming is the paper's.
    site = "encoder.layer.0.attention.self.query"
    alone = [ExpertWeights(e.id, "lora", e.group, {site: e.sites[site]}) for e in three[:2]]
    in_peft.add_weighted_adapter(IDS[:2], [1.0, 1.0], "t", "ties_svd", svd_rank=32, density=0.3)
    made = merge("ties", alone, parameters={"density": 0.3}).expert
    theirs = in_peft.get_base_model().get_submodule(site).get_delta_weight("t")
    torch.testing.assert_close(delta(made.sites[site]).T, theirs, rtol=1e-6, atol=1e-6)


def test_a_merged_expert_acts_as_the_weighted_mix_does(three, encoder64, rows):
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    mix = build_mix([RowMix.of(weights)] * len(rows), [stack_experts(three)])
    made = merge("average", three, weights=list(weights.values())).expert
    alone = build_mix([RowMix.of({made.id: 1.0})] * len(rows), [stack_experts([made])])
    expected = encoder64.run(rows, mix)
    torch.testing.assert_close(encoder64.run(rows, alone), expected, **EXACT)
    assert (expected - encoder64.run(rows)).abs().max() > 1e-3


@pytest.fixture
def library(stored: Callable[..., Entry], open_library: Callable[[], Library]) -> Library:
    for id in IDS:
        stored(id, dtype=torch.float64)
    return open_library()


def put(library: Library, encoder: TextEncoder, rule: str, **more: object) -> Entry:
    """Merge `IDS` and add it as `all`."""
    entries = [library.get(id) for id in IDS]
    plan = make_plan(rule, IDS, rank=more.pop("rank", None))
    loaded = [load_expert(e, encoder.sites, dtype=torch.float64) for e in entries]
    validate(plan, loaded)
    made = apply(plan, loaded, str(more.pop("id", "all")))
    return add_merged(library, plan, made, entries, encoder.sites, **more)


@pytest.mark.parametrize("rule", ["average", "task_arithmetic", "ties"])
def test_what_is_added_loads_again_and_says_what_it_was_made_of(library, encoder64, rule):
    entry = put(library, encoder64, rule, title="All three", tags=["team"])
    sources = [load_expert(library.get(i), encoder64.sites, dtype=torch.float64) for i in IDS]
    expected = merge(rule, sources).expert
    loaded = load_expert(library.get("all"), encoder64.sites, dtype=torch.float64)
    for site, factors in expected.sites.items():
        found = delta(loaded.sites[site])
        torch.testing.assert_close(found, delta(factors), rtol=1e-6, atol=1e-6)
    manifest = library.get("all").manifest
    assert (manifest.title, manifest.tags, manifest.kind) == ("All three", ("team",), "lora")
    said = manifest.provenance
    assert (said["rule"], said["sources"]) == (rule, "a@1, b@1, c@1")
    assert json.loads(str(said["parameters"])) == make_plan(rule, IDS).parameters
    assert not entry.read_artefacts().routable
    assert not (entry.path / ROUTING).exists()
    assert library.verify()["all"] == []


def test_a_truncated_merge_says_its_rank_and_error(library, encoder64):
    said = put(library, encoder64, "ties", rank=3).manifest.provenance
    assert said["rank"] == 3
    assert 0 < said["relative_error"] < 1


def test_a_taken_id_is_refused_or_replaced(library, encoder64):
    put(library, encoder64, "average")
    with pytest.raises(DuplicateExpert):
        put(library, encoder64, "ties")
    again = put(library, encoder64, "ties", replace=True)
    assert again.ref == "all@2"
    assert again.manifest.provenance["rule"] == "ties"
    with pytest.raises(BadExpert, match="cannot be an expert's id"):
        put(library, encoder64, "average", id="../all")
