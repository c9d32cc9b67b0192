"""The experts made for rows: by their rules, at a strength chosen aside, and not twice."""

import json
import shutil

import pytest
import torch

from benchmarks.quality import making
from benchmarks.quality.making import make_experts
from benchmarks.quality.parts import Part
from benchmarks.quality.run import Order, run
from benchmarks.quality.workbench import open_bench
from experts.loader import load_expert
from tests.benchmarks.quality.conftest import HELD_IN, HELD_OUT, places_of, rows

STRENGTHS = (0.2, 1.0)
MADE = rows("average", "ties", "arithmetic", "lorahub")


@pytest.fixture(scope="module")
def made(small_world, tmp_path_factory):
    world = shutil.copytree(small_world, tmp_path_factory.mktemp("made") / "world")
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "STRENGTHS", STRENGTHS)
        patch.setattr(making, "BUDGET", 10)
        make_experts(places_of(world), MADE, told.append)
        yield places_of(world), told


def test_every_row_has_its_expert_and_no_router_can_choose_it(made):
    places, _ = made
    bench = open_bench(places)
    expected = {"average", "ties", "arithmetic", *(f"lorahub.{t}" for t in (*HELD_IN, *HELD_OUT))}
    assert set(bench.engine.library.entries) - set(bench.experts) == expected
    assert set(bench.engine.routing.catalogue.ids) == set(HELD_IN)
    found = run(bench, Order(MADE, ("choices",), limit=2, timed=False, studies=False))
    for row in MADE:
        for part, task, condition in found.summary.results.questions:
            cell = found.summary.results.cell(row, part, task, condition)
            id = f"lorahub.{task.name}" if row.name == "lorahub" else row.name
            assert cell.first == [id] * 2


def test_the_average_is_the_mean_of_the_deltas(made):
    places, _ = made
    bench = open_bench(places)
    library, sites = bench.engine.library, bench.engine.backbone.sites
    load = lambda id: load_expert(library.get(id), sites, dtype=torch.float32)  # noqa: E731
    average, experts = load("average"), [load(id) for id in HELD_IN]
    for site, parts in average.sites.items():
        deltas = [e.sites[site]["A"].T @ e.sites[site]["B"] for e in experts]
        torch.testing.assert_close(
            parts["A"].T @ parts["B"], torch.stack(deltas).mean(dim=0), atol=2e-3, rtol=0
        )


def test_the_strength_is_the_best_of_those_tried_aside(made):
    places, told = made
    bench = open_bench(places)
    for id in ("ties", "arithmetic"):
        assert [t for t in told if t.startswith(f"{id} at")] == [
            f"{id} at {s:g}" for s in STRENGTHS
        ]
        said = bench.engine.library.get(id).manifest.provenance
        assert json.loads(said["parameters"])["lambda"] in STRENGTHS


def test_the_strength_tried_is_the_accuracy_that_the_engine_serves(made):
    places, _ = made
    bench = open_bench(places)
    backbone, library = bench.engine.backbone, bench.engine.library
    expert = load_expert(library.get("average"), backbone.sites, dtype=torch.float32)
    order = Order(rows("average"), ("choices",), ("in",), aside=True, limit=making.TUNING.limit,
                  timed=False, studies=False)  # fmt: skip
    found = run(bench, order).summary
    part = Part("in", aside=True, limit=making.TUNING.limit)
    for task in part.tasks(places.data):
        cell = found.results.cell(order.rows[0], part, task, "choices")
        assert cell.accuracy == making._accuracy(backbone, expert, task, 1.0)


def test_nothing_is_made_twice_and_what_changed_is_made_again(made):
    places, _ = made
    told = []
    make_experts(places, MADE, told.append)
    assert told == []
    make_experts(places, rows("base", "dam"), told.append)
    (places.work / "made-from" / "average").write_text("of others")
    make_experts(places, MADE, told.append)
    assert told == ["merging average"]
