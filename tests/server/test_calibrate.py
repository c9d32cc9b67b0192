"""The global rule's constants: what is tried, who wins, and how a winner is named and stored."""

import json

import pytest
import torch

import server.calibrate
from experts.errors import CorruptExpert
from experts.library import Library
from experts.statements import StatementMap
from routers.calibration import Calibration
from server.build import build_engine
from server.calibrate import (
    BETAS,
    GAMMAS,
    POINTS,
    THRESHOLDS,
    calibrate_rule,
    tensors_of,
    version_of,
)
from server.settings import Settings

START = Calibration(views={"instruction": 1.0, "choices": 2.0, "labels": 3.0, "input": 4.0})


@pytest.fixture
def score(monkeypatch):
    """Replace the accuracy of a run by a function of the constants that are in force."""
    seen = []

    def use(accuracy):
        def measure(engine, tasks, routers, sees, cards, limit, aside):
            constants = engine.routing.calibration
            seen.append((constants.threshold, constants.beta, constants.gamma))
            assert (routers, sees, aside) == (["glider"], "input", True)
            return {"means": {"glider": accuracy(*seen[-1])}, "tasks": {}}

        monkeypatch.setattr(server.calibrate, "measure", measure)
        return seen

    return use


def test_every_pair_is_tried_in_force_and_the_best_wins(engine, score):
    wanted = {(0.95, 10.0): 0.1, (0.95, 10.0, 30.0): 0.1}
    seen = score(lambda *point: 0.5 + wanted.get(point[:2], 0) + wanted.get(point, 0))
    trials = []
    before = engine.library.calibration
    best = calibrate_rule(engine, START, [], {}, lambda: trials.append(1))
    plane = {(p, b, START.gamma) for p in THRESHOLDS for b in BETAS}
    assert set(seen) == plane | {(0.95, 10.0, gamma) for gamma in GAMMAS}
    assert len(trials) == POINTS
    assert (best.threshold, best.beta, best.gamma) == (0.95, 10.0, 30.0)
    assert best.views == START.views
    assert engine.library.calibration == before, "a trial writes nothing"
    assert engine.routing.calibration == Calibration()


def test_the_first_of_equals_wins(engine, score):
    seen = score(lambda *point: 0.5)
    best = calibrate_rule(engine, START, [], {})
    assert (best.threshold, best.beta, best.gamma) == seen[0]


def test_nothing_set_aside_changes_nothing(engine, score):
    score(lambda *point: None)
    assert calibrate_rule(engine, START, [], {}).gamma == START.gamma


def test_a_version_names_the_constants_and_the_tensors():
    tensors = tensors_of(StatementMap.identity(4))
    version = version_of(START, tensors)
    assert version == version_of(START.model_copy(update={"version": "another"}), tensors)
    assert version != version_of(START.model_copy(update={"beta": 4.0}), tensors)
    assert version != version_of(START, {n: 2 * t for n, t in tensors.items()})
    assert len(version) == 12


def test_a_statement_map_is_in_force_once_it_is_written(engine):
    placing = StatementMap(torch.eye(64, 32) * 2, torch.full((32,), 0.5), 44.0)
    engine.library.write_calibration(START.model_dump(mode="json"), tensors_of(placing))
    assert torch.equal(engine.routing.statement_map.map_FD, placing.map_FD)
    assert torch.equal(engine.routing.statement_map.shift_D, placing.shift_D)
    assert engine.routing.statement_map.scale == 44.0
    assert engine.routing.calibration.views == START.views


def test_a_library_without_statements_has_no_map(engine):
    engine.library.write_calibration(START.model_dump(mode="json"), tensors_of(None))
    assert torch.equal(engine.routing.statement_map.map_FD, torch.eye(64, 32))


def test_a_server_outlives_a_calibration_beside_it(engine, library):
    """Another process calibrates: its old tensors are gone from the disk, and ours are here."""
    engine.library.write_calibration(
        START.model_dump(mode="json"), tensors_of(StatementMap.identity(32))
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
