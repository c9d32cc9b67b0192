"""A whole setting on the tiny backbone: trained, gathered, asked, and found again."""

from pathlib import Path

import pytest

from benchmarks.continual import plan as plans
from benchmarks.continual.plan import Plan, Setting
from benchmarks.continual.plots import draw
from benchmarks.continual.report import figures
from benchmarks.continual.rows import ROWS
from benchmarks.continual.run import cells_of, matrix, run_setting
from experts.library import Library
from experts.scope import Scope
from server.engine.run import Engine

TASKS = Path(__file__).parents[2] / "data" / "tasks"
ORDER = ("trec", "sst2", "snips")
SETTING = Setting("short", "lora", 0)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setitem(plans.STREAMS, "short", ORDER)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "held_in").symlink_to(TASKS)
    return Plan(
        data=tmp_path / "data", cache=tmp_path / "cache", backbone="tiny-random",
        streams=("short",), kinds=("lora",), seeds=(0,), examples=6, epochs=1, aside=True, limit=2,
    )  # fmt: skip


def run(plan):
    told = []
    run_setting(SETTING.name, plan.model_dump_json(), lambda *step: told.append(step))
    return told


def files(plan):
    """What a run has on disk: path -> its bytes."""
    return {p: p.read_bytes() for p in sorted(plan.cache.rglob("*")) if p.is_file()}


def test_a_setting_is_made_once(plan, monkeypatch, tmp_path):
    told = run(plan)
    assert all(0 <= done <= total for done, total, _ in told)
    for row in ROWS.values():
        found = matrix(cells_of(plan, SETTING), row, ORDER)
        assert [len(line) for line in found] == [1, 2, 3]
        assert all(0 <= share <= 1 for line in found for share in line)

    before = files(plan)
    asked = []
    monkeypatch.setattr(Engine, "run", lambda _, samples: asked.append(samples))
    run(plan)
    assert not asked
    assert files(plan) == before

    found = figures(plan)
    assert set(found["rows"]["short"]["lora"]) == set(ROWS)
    assert "forgetting" not in found["rows"]["short"]["lora"]["oracle"]
    assert len(found["targets"]) == 4
    (picture,) = draw(found, tmp_path / "report")
    assert picture.stat().st_size > 10_000


def test_after_a_step_there_are_the_experts_so_far_and_no_others(plan):
    run(plan.model_copy(update={"rows": ("dam", "s-prompts", "replay")}))
    root = plan.cache / SETTING.name / "library"
    seen = Library.open(root).snapshot
    for step in range(3):
        for chain, prefix in (("continual", ""), ("alone", "alone.")):
            there = seen.within(Scope(frozenset((f"{chain}-{step}",)))).entries
            assert set(there) == {f"{prefix}{task}" for task in ORDER[: step + 1]}
            assert all(entry.read_artefacts().routable for entry in there.values())
    named = [e for id, e in seen.entries.items() if id.startswith("replay.")]
    assert len(named) == 3
    assert not any(e.read_artefacts().routable for e in named)
    assert not (root.parent / "together").exists(), "no row asks for it"


def test_every_chain_begins_with_the_same_expert_and_has_its_own_past(plan):
    run(plan)
    entries = Library.open(plan.cache / SETTING.name / "library").entries
    first = {entries[id].manifest.files["adapter_model.safetensors"]
             for id in ("trec", "alone.trec", "replay.trec", "ewc.trec")}  # fmt: skip
    assert len(first) == 1
    told = {id: entry.manifest.provenance for id, entry in entries.items()}
    assert "start" not in told["alone.snips"]
    assert told["snips"]["start"].startswith("sst2 ")
    assert told["replay.snips"]["memory"] == "1 of trec, 1 of sst2"
    assert told["ewc.snips"]["ewc"] == "1000 x 2 tasks"
    assert told["together"]["tasks"] == "trec, sst2, snips"


def test_a_cell_is_asked_again_where_what_it_depends_on_changed(plan):
    few = plan.model_copy(update={"rows": ("dam", "ewc")})
    run(few)
    kept = cells_of(plan, SETTING)._cells
    run(few.model_copy(update={"retention": plan.retention.model_copy(update={"ewc": 5.0})}))
    changed = cells_of(plan, SETTING)._cells
    # The second and third expert of the chain are others now; those of DAM are not.
    differing = {name for name in kept if kept[name].digest != changed[name].digest}
    assert {name.split(" ")[0] for name in differing} == {"ewc.sst2", "ewc.snips"}
