"""The global rule's constants: what is tried, who wins, and how a winner is named and stored."""

import pytest
import torch

import server.calibrate
from experts.statements import StatementMap
from routers.calibration import Calibration
from server.calibrate import BETAS, THRESHOLDS, calibrate_rule, tensors_of, version_of

START = Calibration(views={"instruction": 1.0, "choices": 2.0, "labels": 3.0, "input": 4.0})


@pytest.fixture
def score(monkeypatch):
    """Replace the accuracy of a run by a function of the constants that are in force."""
    seen = []

    def use(accuracy):
        def measure(engine, tasks, routers, sees, cards, limit, aside):
            constants = engine.routing.calibration
            seen.append((constants.threshold, constants.beta))
            assert (routers, sees, aside) == (["glider"], "input", True)
            return {"means": {"glider": accuracy(*seen[-1])}, "tasks": {}}

        monkeypatch.setattr(server.calibrate, "measure", measure)
        return seen

    return use


def test_every_pair_is_tried_in_force_and_the_best_wins(engine, score):
    seen = score(lambda p, beta: 0.9 if (p, beta) == (0.95, 10.0) else 0.5)
    best = calibrate_rule(engine, START, [], {})
    assert sorted(seen) == sorted((p, b) for p in THRESHOLDS for b in BETAS)
    assert (best.threshold, best.beta) == (0.95, 10.0)
    assert (best.gamma, best.views) == (START.gamma, START.views)


def test_the_first_of_equals_wins(engine, score):
    seen = score(lambda p, beta: 0.5)
    best = calibrate_rule(engine, START, [], {})
    assert (best.threshold, best.beta) == seen[0]


def test_nothing_set_aside_changes_nothing(engine, score):
    score(lambda p, beta: None)
    assert calibrate_rule(engine, START, [], {}) == START


def test_a_version_names_the_constants_alone():
    version = version_of(START)
    assert version == version_of(START.model_copy(update={"version": "another"}))
    assert version != version_of(START.model_copy(update={"beta": 4.0}))
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
