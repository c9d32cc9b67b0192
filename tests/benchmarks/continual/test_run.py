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
CARDS = Path(__file__).parents[3] / "library" / "tasks"
ORDER = ("trec", "sst2", "snips")
SETTING = Setting("short", "lora", 0)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """What is run here, and was run once."""
    place = tmp_path_factory.mktemp("continual")
    for folder in ("data", "cards", "constants"):
        (place / folder).mkdir()
    (place / "data" / "held_in").symlink_to(TASKS)
    for name in ORDER:
        (place / "cards" / f"{name}.json").symlink_to(CARDS / f"{name}.json")
    ordered = Plan(
        data=place / "data", cache=place / "cache", cards=place / "cards",
        library=place / "constants", backbone="tiny-random", streams=("short",), kinds=("lora",),
        seeds=(0,), examples=6, epochs=1, limit=2,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plans.STREAMS, "short", ORDER)
        told = run(ordered)
        assert all(0 <= done <= total for done, total, _ in told)
        yield ordered


def run(plan):
    told = []
    run_setting(SETTING.name, plan.model_dump_json(), lambda *step: told.append(step))
    return told


def files(plan):
    """What a run has on disk: path -> its bytes."""
    return {p: p.read_bytes() for p in sorted(plan.cache.rglob("*")) if p.is_file()}


def test_every_row_has_a_figure_for_every_task_so_far(plan, tmp_path):
    for row in ROWS.values():
        found = matrix(cells_of(plan, SETTING), row, ORDER)
        assert [len(line) for line in found] == [1, 2, 3]
        assert all(0 <= share <= 1 for line in found for share in line)
    found = figures(plan)
    assert set(found["rows"]["short"]["lora"]) == set(ROWS)
    assert "forgetting" not in found["rows"]["short"]["lora"]["oracle"]
    assert len(found["targets"]) == 4
    (picture,) = draw(found, tmp_path / "report")
    assert picture.stat().st_size > 10_000


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


def test_every_chain_begins_with_the_same_expert_and_has_its_own_past(plan):
    entries = Library.open(plan.cache / SETTING.name / "library").entries
    first = {entries[id].manifest.files["adapter_model.safetensors"]
             for id in ("trec", "alone.trec", "replay.trec", "ewc.trec")}  # fmt: skip
    assert len(first) == 1
    told = {id: entry.manifest.provenance for id, entry in entries.items()}
    assert "start" not in told["alone.snips"]
    assert told["snips"]["start"].startswith("sst2 ")
    assert told["replay.snips"]["memory"] == "1 of trec, 1 of sst2"
    assert told["ewc.snips"]["ewc"].endswith("x 2 tasks")
    assert told["together"]["tasks"] == "trec, sst2, snips"


def test_a_cell_is_asked_again_where_what_it_depends_on_changed(plan):
    """Of another strength, EWC's last expert is another one; whoever it is none of stays."""
    kept = cells_of(plan, SETTING)._cells
    stronger = plan.retention.model_copy(update={"ewc": 1e6})
    run(plan.model_copy(update={"rows": ("dam", "ewc"), "retention": stronger}))
    changed = cells_of(plan, SETTING)._cells
    differing = {name for name in kept if kept[name].digest != changed[name].digest}
    assert differing == {f"ewc.snips | {task}" for task in ORDER}


def test_only_what_rows_need_is_trained(plan, tmp_path):
    few = plan.model_copy(update={"rows": ("replay",), "cache": tmp_path, "length": 2})
    run(few)
    assert {p.name for p in (tmp_path / SETTING.name).iterdir() if p.is_dir()} == {
        "continual", "library", "replay"
    }  # fmt: skip
