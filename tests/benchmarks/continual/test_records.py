"""What is kept of a setting, and which of it a report is of."""

import pytest

from benchmarks.continual.__main__ import _parser, _plan
from benchmarks.continual.plan import SEEDS, Plan, Setting
from benchmarks.continual.records import Learnt, keep, kept
from benchmarks.continual.report import figures
from benchmarks.continual.rows import DAM, DEFAULT, PROMPTS, SEQUENTIAL
from benchmarks.places import RESULTS

PLAN = Plan()
ROWS = (SEQUENTIAL, PROMPTS, DAM, DEFAULT)


CONSTANTS = {"distant": "distant-0", "near": "near-0"}


def learnt(setting, last=0.5, numbers=PLAN.numbers, rows=ROWS, constants=CONSTANTS):
    matrix = ((0.8,), (0.6, last))
    return Learnt(
        commit="abc", constants=constants[setting.stream], numbers=numbers, stream=setting.stream,
        kind=setting.kind, seed=setting.seed, tasks=("a", "b"),
        accuracy=dict.fromkeys(rows, matrix), own=dict.fromkeys(rows, matrix),
    )  # fmt: skip


@pytest.mark.parametrize("options", [("--seeds", "2"), ("--seeds", "0,x"), ("--streams", "far")])
def test_what_is_not_there_is_told_before_hours_of_work(options):
    with pytest.raises(ValueError, match=r"no (seed|stream) .*; there are"):
        _plan(_parser().parse_args(list(options)))


def test_a_seed_named_twice_is_one_setting():
    plan = _plan(_parser().parse_args(["--seeds", "1,1"]))
    assert plan.seeds == (1,)
    assert _plan(_parser().parse_args([])).seeds == SEEDS


def test_what_is_kept_is_read_again_and_a_later_run_takes_its_place(tmp_path):
    one, other, absent = PLAN.settings[:3]
    assert kept(tmp_path, PLAN.numbers, PLAN.settings, CONSTANTS) == []
    for found in (learnt(other), learnt(one), learnt(one, last=0.7)):
        keep(found, tmp_path)
    both = [learnt(one, last=0.7), learnt(other)]
    assert kept(tmp_path, PLAN.numbers, [one, absent, other], CONSTANTS) == both


def test_a_run_that_asks_nothing_leaves_the_commit_that_asked(tmp_path):
    one = learnt(PLAN.settings[0])
    keep(one, tmp_path)
    keep(one.model_copy(update={"commit": "later"}), tmp_path)
    assert kept(tmp_path, PLAN.numbers, PLAN.settings, CONSTANTS) == [one]


@pytest.mark.parametrize("change", [{"epochs": 1}, {"asked": "set aside"}, {"limit": 3}])
def test_figures_of_other_numbers_are_not_mixed_in(tmp_path, change):
    one, other = PLAN.settings[:2]
    keep(learnt(one), tmp_path)
    keep(learnt(other, numbers=PLAN.numbers.model_copy(update=change)), tmp_path)
    assert kept(tmp_path, PLAN.numbers, PLAN.settings, CONSTANTS) == [learnt(one)]


def test_figures_by_other_constants_are_not_mixed_in(tmp_path):
    one, other = Setting("near", "lora", 0), Setting("near", "lora", 1)
    keep(learnt(one), tmp_path)
    keep(learnt(other, constants={"near": "near-1"}), tmp_path)
    assert kept(tmp_path, PLAN.numbers, PLAN.settings, CONSTANTS) == [learnt(one)]


def test_files_of_another_form_are_as_if_they_were_not_there(tmp_path):
    (one,) = PLAN.settings[:1]
    keep(learnt(one), tmp_path).write_text('{"commit": "abc"}')
    assert kept(tmp_path, PLAN.numbers, PLAN.settings, CONSTANTS) == []


def test_figures_are_means_over_the_seeds_that_were_measured():
    first, second = Setting("near", "lora", 0), Setting("near", "lora", 1)
    alone = Setting("near", "bottleneck", 0)
    found = figures([learnt(first, 0.4), learnt(alone, 0.9), learnt(second, 0.8)])
    by_kind = found["rows"]["near"]
    assert by_kind["lora"][DAM]["final"] == pytest.approx(100 * (0.5 + 0.7) / 2)
    assert [seed["seed"] for seed in by_kind["lora"][DAM]["seeds"]] == [0, 1]
    assert by_kind["bottleneck"][DAM]["final"] == pytest.approx(75.0)
    assert sorted(len(target["seeds"]) for target in found["targets"]) == [1] * 4 + [2] * 4


def test_a_row_that_one_seed_lacks_is_left_out():
    first, second = Setting("near", "lora", 0), Setting("near", "lora", 1)
    found = figures([learnt(first), learnt(second, rows=(DAM,))])
    assert set(found["rows"]["near"]["lora"]) == {DAM}


def test_only_runs_by_the_documents_numbers_are_kept_with_them():
    assert Plan(seeds=(1,), streams=("near",), kinds=("lora",)).records == RESULTS / "continual"
    for other in (Plan(aside=True), Plan(limit=3), Plan(rows=("dam",)), Plan(epochs=1)):
        assert other.records != RESULTS / "continual"
        assert other.shown_settings == other.settings
    assert Plan(seeds=(1,)).shown_settings == PLAN.settings
