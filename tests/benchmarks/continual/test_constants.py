"""A stream's constants: fitted without its tasks, and in force where its experts are described."""

import shutil

import pytest
import torch

from benchmarks.continual.constants import make_constants, place_of, take_over
from benchmarks.continual.plan import Plan
from experts.artefacts import Artefacts
from experts.backbones.tiny import tiny_encoder
from experts.constants import CALIBRATION
from experts.errors import UnknownExpert
from experts.library import Library
from experts.training.data import Task
from routers.calibration import Calibration
from routers.fitting.variation import Variation
from routers.metric import Metric
from tests.benchmarks.continual.conftest import ORDER, OTHERS, TASKS

CENTROID = Artefacts("any", centroids=torch.eye(1, 32))


@pytest.fixture(scope="module")
def small_plan(small_plan, tmp_path_factory):
    """With a cache in which nobody has made constants yet."""
    return small_plan.model_copy(update={"cache": tmp_path_factory.mktemp("constants")})


@pytest.fixture
def plan(small_plan, tmp_path):
    """With a demo library and a cache that a test may change."""
    demo = shutil.copytree(small_plan.library, tmp_path / "demo")
    return small_plan.model_copy(update={"library": demo, "cache": tmp_path / "cache"})


@pytest.fixture(scope="module")
def made(small_plan):
    """Where constants are that were made, and what was told meanwhile."""
    told = []
    make_constants("short", small_plan.model_dump_json(), lambda *step: told.append(step))
    return place_of(small_plan, "short"), told


def metric_of(*names):
    backbone = tiny_encoder()
    inputs = {name: [e.input for e in Task(TASKS / name).train] for name in names}
    with torch.inference_mode():
        features = {name: backbone.features(texts) for name, texts in inputs.items()}
    return Variation.of(features).metric()


def change(plan: Plan, name: str):
    """Have the demo library's expert of a task say something else."""
    library = Library.open(plan.library)
    library.refit(library.get(name), CENTROID)


def test_they_are_of_a_library_without_the_tasks_of_the_stream(made):
    place, _ = made
    tensors = Library.open(place).calibration_tensors()
    alone, all_of_demo = metric_of(*OTHERS).tensors(), metric_of(*OTHERS, ORDER[0]).tensors()
    assert set(tensors) == set(alone)
    for name, tensor in tensors.items():
        assert torch.allclose(tensor, alone[name].float(), rtol=2e-3, atol=2e-3)
        of_demo = all_of_demo[name].float()
        assert tensor.shape != of_demo.shape or not torch.allclose(tensor, of_demo, rtol=2e-3)


def test_they_hold_all_that_is_needed_to_route_by_inputs(made):
    place, told = made
    constants = Calibration.model_validate(Library.open(place).calibration)
    assert constants.version
    assert constants.confidence
    assert constants.views != Calibration().views
    written = {p.name for p in place.iterdir() if not p.name.startswith(".")}
    assert written == {CALIBRATION, str(constants.tensors)}
    assert all(0 <= done <= total for done, total, _ in told)
    assert len({what for *_, what in told}) == 5


def test_the_demo_library_stays_as_it_is(plan):
    before = {p: p.read_bytes() for p in plan.library.rglob("*") if p.is_file()}
    make_constants("short", plan.model_dump_json(), lambda *_: None)
    assert {p: p.read_bytes() for p in plan.library.rglob("*") if p.is_file()} == before


def test_they_are_made_once_for_as_long_as_nothing_they_are_of_changes(made, small_plan, plan):
    told = []
    make_constants("short", small_plan.model_dump_json(), lambda *step: told.append(step))
    assert told == []
    place = place_of(plan, "short")
    assert place.name == made[0].name
    change(plan, ORDER[0])
    assert place_of(plan, "short") == place, "an expert of the stream's task is none of theirs"
    first = plan.model_copy(update={"others": 2})
    before = place_of(first, "short")
    change(plan, OTHERS[2])
    assert place_of(plan, "short") != place
    assert place_of(first, "short") == before, "the third is none of the first two"


def test_too_few_other_experts_are_told(plan):
    for name in OTHERS[1:]:
        shutil.rmtree(plan.library / name)
    with pytest.raises(UnknownExpert, match="has 1 experts of tasks that are not in the stream"):
        make_constants("short", plan.model_dump_json(), lambda *_: None)


def test_what_was_described_by_other_constants_is_dropped_once(made, plan):
    """Arrow prototypes of the full width are what the loader refuses: nobody reads them here."""
    library = Library.open(plan.library)
    old = Artefacts("other", centroids=torch.eye(1, 32), vectors={"arrow": {"x": torch.ones(99)}})
    library.refit(library.get("cola"), old)
    take_over(made[0], plan.library)
    taken = Library.open(plan.library)
    entries = taken.entries.values()
    assert not any(entry.read_artefacts().routable for entry in entries)
    assert not any(entry.read_artefacts().vectors for entry in entries)
    theirs = Library.open(made[0]).calibration_tensors()
    ours = Metric.from_tensors(Library.open(plan.library).calibration_tensors(), 64)
    assert ours is not None
    assert torch.equal(ours.centre_F, theirs["input_centre"])

    taken.refit(taken.get("cola"), CENTROID)
    take_over(made[0], plan.library)
    assert Library.open(plan.library).get("cola").read_artefacts().routable


def test_constants_that_are_not_there_are_told(plan):
    with pytest.raises(UnknownExpert, match="has no constants"):
        take_over(plan.cache, plan.library)
