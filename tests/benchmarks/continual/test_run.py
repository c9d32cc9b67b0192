"""A whole setting on the tiny backbone: trained, gathered, asked, and found again."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.continual import experts
from benchmarks.continual.constants import make_constants, place_of
from benchmarks.continual.page import write_page
from benchmarks.continual.plan import Setting
from benchmarks.continual.plots import draw
from benchmarks.continual.records import kept
from benchmarks.continual.report import figures
from benchmarks.continual.rows import ROWS, Way
from benchmarks.continual.run import cells_of, matrix, run_setting
from experts.artefacts import Artefacts
from experts.atomic import LOCK
from experts.backbones.tiny import tiny_encoder
from experts.constants import CALIBRATION, write_constants
from experts.library import Library
from experts.scope import Scope
from experts.training.data import Task
from experts.training.recipe import Retention
from routers.fitting.build import metric_of
from routers.fitting.inputs import mean_and_spread
from server import stream
from server.engine.run import Engine
from tests.benchmarks.continual.conftest import ORDER, TASKS

SETTING = Setting("short", "lora", 0)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plan(small_plan):
    """What is run here, and was run once."""
    told = run(small_plan)
    assert all(0 <= done <= total for done, total, _ in told)
    return small_plan


def run(plan):
    told = []
    for work, name in ((make_constants, SETTING.stream), (run_setting, SETTING.name)):
        work(name, plan.model_dump_json(), lambda *step: told.append(step))
    return told


def files(plan):
    """What a run has on disk: path -> its bytes. A lock is of whoever opened a library last."""
    found = sorted(p for p in plan.cache.rglob("*") if p.is_file() and p.name != LOCK)
    return {p: p.read_bytes() for p in found}


def test_every_row_has_a_figure_for_every_task_so_far(plan, tmp_path):
    for row in ROWS.values():
        found = matrix(cells_of(plan, SETTING), row, ORDER)
        assert [len(line) for line in found] == [1, 2, 3]
        assert all(0 <= share <= 1 for line in found for share in line)
    constants = {SETTING.stream: place_of(plan, SETTING.stream).name}
    found = figures(kept(plan.records, plan.numbers, plan.settings, constants))
    assert set(found["rows"]["short"]["lora"]) == set(ROWS)
    assert "forgetting" not in found["rows"]["short"]["lora"]["oracle"]
    assert len(found["targets"]) == 4
    (picture,) = draw(found, tmp_path)
    assert picture.stat().st_size > 10_000
    page = write_page(found, [picture], tmp_path).read_text()
    assert f"({picture.name})" in page
    for name, row in ROWS.items():
        assert row.title in page, name
    assert f"| {found['targets'][0]['value']:g} |" in page


def test_a_second_run_finds_everything(plan, monkeypatch):
    before, asked = files(plan), []
    monkeypatch.setattr(Engine, "run", lambda _, samples: asked.append(samples))
    run(plan)
    assert not asked
    assert files(plan) == before


def test_after_a_step_there_are_the_experts_so_far_and_no_others(plan):
    seen = Library.open(plan.cache / SETTING.name / "library").snapshot
    for step in range(3):
        for chain, prefix in (("continual", ""), ("alone", "alone.")):
            there = seen.within(Scope(frozenset((f"{chain}-{step}",)))).entries
            assert set(there) == {f"{prefix}{task}" for task in ORDER[: step + 1]}
            assert all(entry.read_artefacts().routable for entry in there.values())
    named = [e for id, e in seen.entries.items() if id.startswith(("replay.", "ewc.", "together"))]
    assert len(named) == 7
    assert not any(e.read_artefacts().routable for e in named)


def test_routed_experts_are_described_by_the_constants_of_the_stream(plan):
    backbone = tiny_encoder()
    constants = Library.open(place_of(plan, "short"))
    gathered = Library.open(plan.cache / SETTING.name / "library")
    assert gathered.calibration["version"] == constants.calibration["version"]
    for id in (*ORDER, *(f"alone.{name}" for name in ORDER)):
        inputs = [e.input for e in Task(TASKS / id.rpartition(".")[2]).train[:6]]
        with torch.inference_mode():
            wanted = mean_and_spread(backbone.features(inputs), metric_of(constants, backbone))
        artefacts = gathered.get(id).read_artefacts()
        assert len(wanted) > 1, "it varies beyond the metric"
        assert artefacts.seen == len(inputs)
        assert torch.allclose(artefacts.inputs, wanted.half().float(), rtol=1e-2, atol=1e-4)
        assert "gate" not in artefacts.vectors, "no row routes by token"


def test_what_older_code_described_is_described_anew_and_not_trained(plan, monkeypatch):
    """Its artefacts know no metric, and hold Arrow prototypes in full, which are not loaded."""
    library = plan.cache / SETTING.name / "library"
    before = {path: load_file(path) for path in sorted(library.rglob("*/*.safetensors"))}
    chain = Library.open(plan.cache / SETTING.name / "continual")
    for entry in list(chain.entries.values()):
        known = entry.read_artefacts()
        full = {site: torch.ones(999) for site in known.vectors["arrow"]}
        old = Artefacts(known.embedder, known.instructions, centroids=known.centroids,
                        vectors={"arrow": full})  # fmt: skip
        chain.refit(entry, old)
    (chain.root / CALIBRATION).unlink()
    for module in (experts, stream):
        monkeypatch.setattr(module, "train_tasks", lambda *_: pytest.fail("it is trained"))
    run(plan)
    for path, tensors in before.items():
        found = load_file(path)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_every_chain_begins_with_the_same_expert_and_has_its_own_past(plan):
    entries = Library.open(plan.cache / SETTING.name / "library").entries
    first = {entries[id].manifest.files["adapter_model.safetensors"]
             for id in ("trec", "alone.trec", "replay.trec", "ewc.trec")}  # fmt: skip
    assert len(first) == 1
    told = {id: entry.manifest.provenance for id, entry in entries.items()}
    assert "start" not in told["alone.snips"]
    assert told["snips"]["start"].startswith("subj ")
    assert told["replay.snips"]["memory"] == "1 of trec, 1 of subj"
    assert told["ewc.snips"]["ewc"].endswith("x 2 tasks")
    assert told["together"]["tasks"] == "trec, subj, snips"


def test_a_cell_is_asked_again_where_what_it_depends_on_changed(plan):
    """Of another strength, EWC's last expert is another one; whoever it is none of stays."""
    kept = cells_of(plan, SETTING)._cells
    stronger = plan.retention.model_copy(update={"ewc": 1e6})
    run(plan.model_copy(update={"rows": ("dam", "ewc"), "retention": stronger}))
    changed = cells_of(plan, SETTING)._cells
    differing = {name for name in kept if kept[name].digest != changed[name].digest}
    assert differing == {f"ewc.snips | {task}" for task in ORDER}


def test_other_constants_have_only_those_asked_again_who_route_by_them(plan, tmp_path):
    rows = ("sequential", "dam", "s-prompts", "sailplane", "sailplane-alone")
    copied = plan.model_copy(update={"cache": tmp_path / "cache", "rows": rows})
    shutil.copytree(plan.cache, copied.cache)
    kept, root = cells_of(copied, SETTING)._cells, place_of(copied, SETTING.stream)
    constants = Library.open(root)
    changed = {**constants.calibration, "version": "another", "unsure": 0.9}
    write_constants(root, changed, constants.calibration_tensors(), None)
    run(copied)
    now = cells_of(copied, SETTING)._cells
    differing = {name for name in kept if kept[name].digest != now[name].digest}
    assert differing == {name for name in kept if name.startswith("default@")}


def test_strengths_are_compared_on_what_is_set_aside_and_share_what_is_trained(plan, monkeypatch):
    """Once a strength was trained, nothing is, whatever was asked meanwhile."""
    rows = plan.model_copy(update={"rows": ("sequential", "ewc")})
    weaker = rows.model_copy(update={"retention": Retention(ewc=1)})
    run(weaker.model_copy(update={"aside": True}))
    for module in (experts, stream):
        monkeypatch.setattr(module, "train_tasks", lambda *_: pytest.fail("it is trained"))
    tests = (plan.cache / SETTING.name / "cells-test.json").read_bytes()
    for asked in (rows, weaker):
        run(asked.model_copy(update={"aside": True}))
        assert (
            cells_of(asked.model_copy(update={"aside": True}), SETTING)
            .get(Way("ewc.snips"), "snips")
            .asked
            == 2
        )
    assert (plan.cache / SETTING.name / "cells-test.json").read_bytes() == tests
    chains = {p.name for p in (plan.cache / SETTING.name).glob("ewc-*")}
    assert {"ewc-1", f"ewc-{plan.retention.ewc:g}"} <= chains


def test_only_what_rows_need_is_trained(plan, tmp_path):
    few = plan.model_copy(update={"rows": ("replay",), "cache": tmp_path, "length": 2})
    run(few)
    assert {p.name for p in (tmp_path / SETTING.name).iterdir() if p.is_dir()} == {
        "continual", "library", "replay"
    }  # fmt: skip
