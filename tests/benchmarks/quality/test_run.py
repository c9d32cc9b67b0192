"""A whole run in small: what is asked, what is kept, and what is said of what is not made."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from benchmarks.quality import report
from benchmarks.quality.ablations import NO_HEDGE, NO_METRIC
from benchmarks.quality.cells import Cell, Place, digest, read_cell
from benchmarks.quality.conditions import CONDITIONS
from benchmarks.quality.parts import Part, QualityError, parts_of
from benchmarks.quality.results import Gap
from benchmarks.quality.rows import COMPARISON, Forced, Routed
from benchmarks.quality.run import Order, run
from benchmarks.quality.summary import Group
from benchmarks.quality.targets import targets_of
from experts.backbones.tiny import tiny_encoder
from experts.manifest import TaskCard
from experts.training.data import Task, read_tasks
from routers.catalogue import Catalogue
from routers.fitting.variation import Variation
from routers.presets import DEFAULT
from routers.shortlist import Shortlist
from server.calibrate import features_of
from server.evaluate import measure
from tests.benchmarks.quality.conftest import (
    HELD_IN,
    bench_of,
    rows,
    write_one,
)

FEW = rows("base", "dam", "default", "oracle")
PLAIN = Order(FEW, timed=False, studies=False)


@pytest.fixture(scope="module")
def whole(bench):
    """All rows, as `make quality` runs them."""
    return run(bench, Order(COMPARISON, limit=3))


def test_a_cell_is_what_evaluate_measures(bench, whole):
    """Many ways and conditions in one batch answer as each would alone."""
    part = Part("in", limit=3)
    tasks = part.tasks(bench.places.data)
    for condition in ("input", "choices", "reworded"):
        for router in ("base", "dam", "phatgoose", "default"):
            row = next(r for r in COMPARISON if r.name == router)
            alone = measure(bench.engine, tasks, [row.way.preset], condition, bench.cards, 3)
            for task in tasks:
                cell = whole.summary.results.cell(row, part, task, condition)
                assert cell.accuracy == alone["tasks"][task.name][row.way.preset]


def test_the_oracle_is_the_own_expert_or_the_best_there_is(whole):
    results, (oracle,) = whole.summary.results, rows("oracle")
    held_in, held_out = results.part("in"), results.part("out")
    for task in results.questions.tasks[held_in]:
        own = results.cells[Place(held_in, Forced(task.name), task.name, "choices")]
        assert results.cell(oracle, held_in, task, "choices") == own
        assert own.first == [task.name] * 3
    for task in results.questions.tasks[held_out]:
        each = [results.cells[Place(held_out, Forced(e), task.name, "input")] for e in HELD_IN]
        best = results.cell(oracle, held_out, task, "input")
        assert best.accuracy == max(c.accuracy for c in each)


def test_the_best_single_expert_is_chosen_on_what_is_set_aside(whole):
    results = whole.summary.results
    assert set(results.best) == set(HELD_IN)
    means = {id: sum(by.values()) / len(by) for id, by in results.best.items()}
    assert results.single() == max(means, key=means.get)
    assert results.single(left=results.single()) != results.single()


def test_a_row_that_is_not_made_is_told_and_its_targets_are_unmet(whole):
    (ties,) = rows("ties")
    found = whole.summary.mean(ties, Group("out"), "choices")
    assert isinstance(found, Gap)
    assert "'ties' is not made" in found.reason
    targets = targets_of(whole.summary, Group("out"))
    best = [t for t in targets if "the best of every row" in t.figure]
    assert len(best) == 3
    assert all(t.holds is False and "ties" in t.note for t in best)
    assert all(isinstance(t.holds, bool) for t in targets if t.target)


def test_page_figures_and_pictures_are_written(whole, tmp_path):
    written = report.write_report(whole, tmp_path)
    page = written[0].read_text()
    for row in COMPARISON:
        assert row.title in page
    assert "TIES: " in page, "with the reason why it is not there"
    assert page.rstrip().count("## What bounds it") == 1
    assert "AUROC 0." in page
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert {"figure", "value", "target", "holds"} <= figures["targets"][0].keys()
    asked = len(COMPARISON) * 5 * len(CONDITIONS)
    assert len(figures["cells"]) == asked
    for picture in ("heat", "confusion", "reliability", "count"):
        assert (tmp_path / f"quality-{picture}.png").stat().st_size > 5_000
        assert f"quality-{picture}.png" in page
    made = {r.name for r in COMPARISON} - {"average", "ties", "arithmetic", "lorahub", "multitask"}
    assert set(figures["milliseconds"]) == made
    assert all(ms > 0 for ms in figures["milliseconds"].values())


def test_held_out_runs_are_logged_and_others_are_not(world):
    bench = bench_of(world)
    run(bench, Order(FEW, ("choices",), ("in",), limit=2, timed=False, studies=False))
    assert not bench.places.held_out_log.exists()
    order = Order(FEW, ("choices",), limit=2, timed=False, studies=False)
    run(bench, order)
    run(bench, order)
    (line,) = bench.places.held_out_log.read_text().splitlines()
    said = json.loads(line)
    assert said["rows"] == [row.name for row in FEW]
    assert said["conditions"] == ["choices"]
    assert said["limit"] == 2


def test_only_what_changed_is_asked_again(world):
    order = Order(FEW, ("choices", "reworded"), limit=3, timed=False, studies=False)
    first = run(bench_of(world), order)
    assert first.measured > 0
    assert run(bench_of(world), order).measured == 0, "a second run asks nothing"
    # Other words for one task: its reworded cells alone; 4 ways and 2 more of the oracle's.
    path = world / "cards" / "subj.json"
    card = TaskCard.model_validate_json(path.read_text())
    path.write_text(card.model_copy(update={"instruction_unseen": "What else?"}).model_dump_json())
    ways = 3 + len(HELD_IN)
    assert run(bench_of(world), order).measured == 3 * ways
    # An expert made for a row changes nothing for others.
    card = card.model_copy(update={"id": "ties", "labels": ()})
    write_one(world / "work" / "made", tiny_encoder(), card, None)
    assert run(bench_of(world), order).measured == 0
    with_ties = Order(rows("ties"), ("choices",), ("in",), limit=3, timed=False, studies=False)
    assert run(bench_of(world), with_ties).measured == 3 * len(HELD_IN)
    # Other weights of one expert: all that routes, and that expert; not the bare backbone.
    shutil.rmtree(world / "library" / "sick")
    there = bench_of(world)
    assert "sick" not in there.experts
    plain = Order(FEW, ("choices",), limit=3, timed=False, studies=False)
    found = run(there, plain)
    gone = found.summary.mean(rows("oracle")[0], Group("in"), "choices")
    assert isinstance(gone, Gap)
    routed = 2 * 5 * 3  # two rows, five tasks, three examples
    assert found.measured == routed


def test_rows_can_be_asked_again(bench, whole):
    order = Order(FEW, ("input",), ("in",), limit=3, timed=False, studies=False)
    assert run(bench, order).measured == 0
    again = Order(FEW, ("input",), ("in",), limit=3, timed=False, studies=False,
                  again=frozenset(["dam"]))  # fmt: skip
    assert run(bench, again).measured == 3 * len(HELD_IN)


def test_what_is_asked_again_is_not_told_from_before(whole):
    """The best single expert is chosen by cells that may be among those asked again."""
    before = whole.summary.results
    results = replace(before, cells=dict(before.cells))
    missing = results.collect(rows("dam"), again=["dam"])
    assert missing
    assert not results.cells.keys() & {found.place for found in missing}
    assert results.cells.keys() < before.cells.keys()


def test_a_task_that_is_left_out_has_no_expert_of_its_own(bench):
    order = Order(COMPARISON, ("input",), ("in", "left"), aside=True, timed=False, studies=False)
    found = run(bench, order)
    results, part = found.summary.results, found.summary.results.part("left")
    for task in results.questions.tasks[part]:
        for name in ("default", "dam", "retrieval", "knn", "oracle", "single"):
            cell = results.cell(rows(name)[0], part, task, "input")
            assert task.name not in cell.first, name
    assert "left out" in results.ways(rows("ties")[0], part, task).reason
    targets = targets_of(found.summary, Group("left"))
    auroc = next(t for t in targets if "AUROC" in t.figure)
    assert 0 <= auroc.value <= 1


def test_a_library_that_is_without_a_task_has_never_heard_of_it(bench):
    """Neither of its expert nor, where it has a metric, of how its inputs vary."""
    there, (task, *rest) = bench.engine.routing.current(), sorted(HELD_IN)
    assert bench.without(task).shortlist.catalogue.ids == tuple(rest)
    assert bench.without(task).metric is None
    folder = bench.places.data / "held_in"
    of_all, of_rest = (
        Variation.of(features_of(bench.engine.backbone, read_tasks(folder, names))).metric()
        for names in (HELD_IN, rest)
    )
    catalogue = Catalogue(there.shortlist.catalogue.experts, metric=of_all)
    with bench.engine.routing.trying(replace(there, shortlist=Shortlist(catalogue))):
        left = bench.without(task)
    assert left.shortlist.catalogue.ids == tuple(rest)
    torch.testing.assert_close(left.metric.centre_F, of_rest.centre_F)
    assert not torch.allclose(left.metric.centre_F, of_all.centre_F)


def test_held_out_tasks_are_never_asked_aside():
    with pytest.raises(QualityError, match="--held out"):
        parts_of(("in", "out"), aside=True, limit=None)


def test_a_cell_of_another_digest_counts_as_not_there(tmp_path):
    from benchmarks.quality.cells import write_cell

    place = Place(Part("in"), Routed("dam", 2, "merge"), "trec", "input")
    cell = Cell([1, 0], ["a", None], [2, 0], [0.5, None], [0.9, 0.4], [0, 2])
    write_cell(tmp_path, place, "key", cell)
    assert read_cell(tmp_path, place, "key") == cell
    assert read_cell(tmp_path, place, "another") is None
    assert cell.unseen == Cell([0], [None], [0], [None], [0.4], [2])
    assert cell.own_N("a").tolist() == [1, 0]
    assert cell.confidence_N.tolist() == [0.5, 0]


def test_only_presets_that_go_by_constants_are_asked_anew_after_a_calibration(bench, monkeypatch):
    task = Task(bench.places.data / "held_in" / "trec")

    def keys():
        presets = (DEFAULT, NO_HEDGE, NO_METRIC, "glider", "dam", "arrow", "neighbours", "base")
        places = {p: Place(Part("in"), Routed(p), task.name, "input") for p in presets}
        return {preset: digest(place, bench, task) for preset, place in places.items()}

    before = keys()
    monkeypatch.setitem(bench.__dict__, "routing_digest", "of other constants")
    after = keys()
    assert {p for p in before if before[p] != after[p]} == {DEFAULT, NO_HEDGE, NO_METRIC, "glider"}


def test_the_bank_is_of_training_inputs_alone(bench):
    for id in bench.experts:
        task = Task(bench.places.data / "held_in" / id)
        bank = bench.engine.library.get(id).read_artefacts().examples
        assert len(bank) == len(task.train)
