"""The global rule's constants: what is tried, who wins, and how a winner is named and stored."""

import gzip
import json
from contextlib import contextmanager

import pytest
import torch

import server.calibrate
from experts.errors import CorruptExpert
from experts.library import Library
from experts.statements import StatementMap
from experts.training.data import Task
from routers.calibration import Calibration
from server.build import build_engine
from server.calibrate import (
    BETAS,
    GAMMAS,
    HEDGES,
    RULES,
    THRESHOLDS,
    Hedge,
    calibrate,
    calibrate_hedge,
    calibrate_rule,
    tensors_of,
    version_of,
)
from server.settings import Settings

WEIGHTS = {"instruction": 1.0, "choices": 2.0, "labels": 3.0, "input": 4.0, "density": 5.0}
START = Calibration(views=WEIGHTS)


@pytest.fixture
def score(monkeypatch):
    """Replace the accuracy of a run by a function of the constants that are in force."""
    seen = []

    def use(accuracy):
        def measure(engine, tasks, routers, sees, cards, limit, aside, left_out):
            constants = engine.routing.calibration
            assert aside
            seen.append((routers[0], sees, left_out, constants))
            return {"means": {routers[0]: accuracy(constants)}, "tasks": {}}

        monkeypatch.setattr(server.calibrate, "measure", measure)
        return seen

    return use


def rule_of(constants):
    return constants.threshold, constants.beta, constants.gamma


def test_every_rule_is_tried_in_force_and_the_best_wins(engine, score):
    wanted = {(0.95, 10.0): 0.1, (0.95, 10.0, 30.0): 0.1}
    seen = score(lambda c: 0.5 + wanted.get(rule_of(c)[:2], 0) + wanted.get(rule_of(c), 0))
    trials = []
    before = engine.library.calibration
    best = calibrate_rule(engine, START, [], {}, lambda: trials.append(1))
    plane = {(p, b, START.gamma) for p in THRESHOLDS for b in BETAS}
    assert {rule_of(c) for *_, c in seen} == plane | {(0.95, 10.0, gamma) for gamma in GAMMAS}
    assert {(router, sees, left) for router, sees, left, _ in seen} == {
        ("glider", "instruction", False)
    }
    assert len(trials) == len(RULES) + len(GAMMAS)
    assert rule_of(best) == (0.95, 10.0, 30.0)
    assert best.views == START.views
    assert engine.library.calibration == before, "a trial writes nothing"
    assert engine.routing.calibration == Calibration()


def test_the_first_of_equals_wins_which_is_the_papers(engine, score):
    score(lambda _: 0.5)
    assert rule_of(calibrate_rule(engine, START, [], {})) == (0.8, 3.0, 100.0)


def test_a_hedge_is_chosen_by_tasks_with_and_without_their_own_expert(engine, score):
    seen = score(lambda c: 0.9 if (c.flatness, c.unsure) == (0.3, 0.7) else 0.5)
    trials = []
    best = calibrate_hedge(engine, START, [], {}, lambda: trials.append(1))
    assert (best.flatness, best.unsure) == (0.3, 0.7)
    assert {Hedge(c.flatness, c.unsure) for *_, c in seen} == set(HEDGES)
    assert {(router, sees, left) for router, sees, left, _ in seen} == {
        ("sailplane", sees, left) for sees in ("input", "choices") for left in (False, True)
    }  # fmt: skip
    assert len(trials) == len(HEDGES)


@pytest.mark.parametrize("words", [True, False])
def test_a_library_is_calibrated_whole_or_for_inputs_alone(
    engine, score, tmp_path, monkeypatch, words
):
    """Its cards have no statements to fit a map on, so one is put in the place of the fit."""
    seen, steps, placing = score(lambda _: 0.5), {}, StatementMap.identity(32)
    monkeypatch.setattr(server.calibrate, "fit_statement_map", lambda *_: placing)

    @contextmanager
    def stage(what, total):
        told = []
        yield lambda: told.append(1)
        steps[what] = (len(told), total)

    task = Task(tmp_path / "tasks" / "weather")
    task.folder.mkdir(parents=True)
    with gzip.open(task.folder / "train.jsonl.gz", "wt") as file:
        for i in range(40):
            row = {"input": f"day {i}", "options": ["yes", "no"], "answer": 0}
            file.write(json.dumps(row) + "\n")
    constants = calibrate(engine, [task], stage, words=words)
    assert {router for router, *_ in seen} == {"sailplane", *(["glider"] if words else [])}
    assert len(steps) == 4
    assert all(done == total > 0 for done, total in steps.values())
    assert ("statement_map" in engine.library.calibration_tensors()) == words
    assert engine.routing.metric is not None
    assert engine.routing.calibration.model_copy(update={"tensors": None}) == constants
    assert engine.library.get("weather").read_artefacts().inputs is not None


def test_nothing_set_aside_changes_nothing(engine, score):
    score(lambda _: None)
    assert calibrate_rule(engine, START, [], {}).gamma == START.gamma


def test_a_version_names_the_constants_and_the_tensors():
    tensors = tensors_of(StatementMap.identity(4), None)
    version = version_of(START, tensors)
    assert version == version_of(START.model_copy(update={"version": "another"}), tensors)
    assert version != version_of(START.model_copy(update={"beta": 4.0}), tensors)
    assert version != version_of(START, {n: 2 * t for n, t in tensors.items()})
    assert len(version) == 12


def test_a_statement_map_is_in_force_once_it_is_written(engine):
    placing = StatementMap(torch.eye(64, 32) * 2, torch.full((32,), 0.5), 44.0)
    engine.library.write_calibration(START.model_dump(mode="json"), tensors_of(placing, None))
    assert torch.equal(engine.routing.statement_map.map_FD, placing.map_FD)
    assert torch.equal(engine.routing.statement_map.shift_D, placing.shift_D)
    assert engine.routing.statement_map.scale == 44.0
    assert engine.routing.calibration.views == START.views


def test_a_library_without_statements_has_no_map(engine):
    engine.library.write_calibration(START.model_dump(mode="json"), tensors_of(None, None))
    assert torch.equal(engine.routing.statement_map.map_FD, torch.eye(64, 32))


def test_a_server_outlives_a_calibration_beside_it(engine, library):
    """Another process calibrates: its old tensors are gone from the disk, and ours are here."""
    engine.library.write_calibration(
        START.model_dump(mode="json"), tensors_of(StatementMap.identity(32), None)
    )
    assert engine.routing.calibration.views == START.views
    other = Library.open(library)
    other.write_calibration(START.model_dump(mode="json"), {"statement_scale": torch.tensor(1.0)})
    engine.library.remove("mood")
    assert torch.equal(engine.routing.statement_map.map_FD, torch.eye(64, 32))


def test_a_map_of_another_form_is_told_and_left_alone(engine, caplog):
    old = {"statement_map": torch.eye(32), "statement_scale": torch.tensor(30.0)}
    engine.library.write_calibration(START.model_dump(mode="json"), old)
    assert torch.equal(engine.routing.statement_map.map_FD, torch.eye(64, 32))
    assert "fit --calibrate" in caplog.text


@pytest.mark.parametrize("stored", [{"views": {"input": 1}}, {"gamma": "much"}, {"delta": 1}])
def test_constants_that_nobody_wrote_stop_the_start(library, stored):
    (library / "calibration.json").write_text(json.dumps(stored))
    with pytest.raises(CorruptExpert, match=r"calibration\.json"):
        build_engine(Settings(backbone="tiny-random", library=library, threads=1))
