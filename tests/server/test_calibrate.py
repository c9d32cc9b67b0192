"""The global rule's constants: what is tried, who wins, and how a winner is named and stored."""

import gzip
import json
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

import server.trials
from experts.errors import CorruptExpert, UnknownExpert
from experts.library import Library
from experts.statements import StatementMap
from experts.training.data import Task
from routers.calibration import DATED, TEMPERATURE, Calibration, Reference
from routers.shortlist import Shortlist
from routers.types import Chosen, Selection
from server.build import build_engine
from server.calibrate import calibrate, tensors_of, version_of
from server.engine.messages import Choice, Question, RoutingOptions, Sample
from server.settings import Settings
from server.trials import (
    BETAS,
    GAMMAS,
    HEDGES,
    RULES,
    THRESHOLDS,
    WRITERS,
    Hedge,
    Trial,
    calibrate_hedge,
    calibrate_rule,
)
from tests.experts.killing import run_killed
from tests.server.api.writing_material import engine_of

WEIGHTS = {"instruction": 1.0, "choices": 2.0, "labels": 3.0, "input": 4.0, "density": 5.0}
START = Calibration(views=WEIGHTS)


@pytest.fixture
def score(monkeypatch):
    """Replace the accuracy of a run by a function of the constants that are in force."""
    seen = []

    def use(accuracy):
        def measure(engine, tasks, routers, sees, cards, limit, aside, written):
            constants = engine.routing.calibration
            assert aside
            seen.append((routers[0], sees, engine.routing.catalogue.ids, constants))
            return {"means": {routers[0]: accuracy(constants)}, "tasks": {}}

        monkeypatch.setattr(server.trials, "measure", measure)
        return seen

    return use


def rule_of(constants):
    return constants.threshold, constants.beta, constants.gamma


def test_every_rule_is_tried_in_force_and_the_best_wins(engine, score):
    wanted = {(0.95, 10.0): 0.1, (0.95, 10.0, 30.0): 0.1}
    seen = score(lambda c: 0.5 + wanted.get(rule_of(c)[:2], 0) + wanted.get(rule_of(c), 0))
    trials = []
    before = engine.library.calibration
    best = calibrate_rule(Trial(engine, {}), START, [], lambda: trials.append(1))
    plane = {(p, b, START.gamma) for p in THRESHOLDS for b in BETAS}
    assert {rule_of(c) for *_, c in seen} == plane | {(0.95, 10.0, gamma) for gamma in GAMMAS}
    assert {(router, sees) for router, sees, *_ in seen} == {("glider", "instruction")}
    assert len(trials) == len(RULES) + len(GAMMAS)
    assert rule_of(best) == (0.95, 10.0, 30.0)
    assert best.views == START.views
    assert engine.library.calibration == before, "a trial writes nothing"
    assert engine.routing.calibration == Calibration()


def test_the_first_of_equals_wins_which_is_the_papers(engine, score):
    score(lambda _: 0.5)
    assert rule_of(calibrate_rule(Trial(engine, {}), START, [])) == (0.8, 3.0, 100.0)


def test_a_hedge_is_chosen_by_tasks_with_and_without_their_own_expert(engine, score, weather):
    seen = score(lambda c: 0.9 if (c.flatness, c.unsure) == (0.3, 0.25) else 0.5)
    there = engine.routing.current()
    ids = there.shortlist.catalogue.ids
    others = tuple(id for id in ids if id != "weather")
    steps = []

    def without(id):
        for left in ([other for other in ids if other != id], []):
            yield replace(there, shortlist=Shortlist(there.shortlist.catalogue.among(left)))

    trial = Trial(engine, {})
    best = calibrate_hedge(trial, START, [weather], without, lambda: steps.append(1))
    assert (best.flatness, best.unsure) == (0.3, 0.25)
    assert {Hedge(c.flatness, c.unsure) for *_, c in seen} == set(HEDGES)
    assert {(router, sees, left) for router, sees, left, _ in seen} == {
        ("sailplane", sees, left) for sees in ("input", "choices") for left in (ids, others, ())
    }  # fmt: skip
    assert len(seen) == 6 * len(HEDGES)
    assert steps == [1], "one a task"


@pytest.fixture
def weather(tmp_path):
    """The task of one expert of the library."""
    task = Task(tmp_path / "tasks" / "weather")
    task.folder.mkdir(parents=True)
    with gzip.open(task.folder / "train.jsonl.gz", "wt") as file:
        for i in range(40):
            row = {"input": f"day {i}", "options": ["yes", "no"], "answer": 0}
            file.write(json.dumps(row) + "\n")
    return task


@pytest.fixture
def writing(tmp_path):
    """The same task where what is said of a day is to be written."""
    task = Task(tmp_path / "writing" / "weather")
    task.folder.mkdir(parents=True)
    lines = [json.dumps({"input": f"day {i}", "output": f"It is day {i}."}) for i in range(40)]
    (task.folder / "train.jsonl").write_text("\n".join(lines))
    return task


def test_tasks_that_write_are_mixed_more_sharply_and_shown_no_choices(engine, score, writing):
    seen = score(lambda c: 0.9 if (c.sharpness, c.flatness, c.unsure) == (4, 1, 1) else 0.5)
    best = calibrate_hedge(Trial(engine, {}), START, [writing], lambda _: [])
    assert (best.sharpness, best.flatness, best.unsure) == (4, 1, 1)
    tried = {Hedge(c.flatness, c.unsure, c.sharpness) for *_, c in seen}
    assert tried == set(WRITERS)
    assert {sees for _, sees, *_ in seen} == {"input", "instruction"}
    calibrate_rule(Trial(engine, {}), START, [writing])
    assert {sees for router, sees, *_ in seen if router == "glider"} == {"instruction"}


def test_a_library_that_writes_is_calibrated_by_how_likely_its_texts_are(tmp_path, writing):
    """Of two experts the one whose task it is comes first; its answers know no temperature."""
    engine = engine_of("causal", tmp_path / "library")
    task = Task(writing.folder.rename(writing.folder.with_name("sum")))
    constants = calibrate(engine, [task], stages(), words=False)
    assert constants.temperature == TEMPERATURE
    assert Hedge(constants.flatness, constants.unsure, constants.sharpness) in WRITERS
    assert not any("choices" in sort for sort in constants.confidence)
    assert engine.library.calibration["version"] == constants.version
    assert engine.routing.metric is not None


def files_of(root):
    """Every file below a folder, hidden ones too, by its path: all its bytes."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def stages(told=lambda what: None):
    """Stages that tell at their start, at each step and at their end which one it is."""

    @contextmanager
    def stage(what, total):
        told(what)
        yield lambda: told(what)
        told(what)

    return stage


@pytest.mark.parametrize("words", [True, False])
def test_a_library_is_calibrated_whole_or_for_inputs_alone(
    engine, score, weather, monkeypatch, words
):
    """Its cards have no statements to fit a map on, so one is put in the place of the fit."""
    seen, steps, placing = score(lambda _: 0.5), {}, StatementMap.identity(32)
    monkeypatch.setattr(server.calibrate, "fit_statement_map", lambda *_: placing)

    @contextmanager
    def stage(what, total):
        told = []
        yield lambda: told.append(1)
        steps[what] = (len(told), total)

    constants = calibrate(engine, [weather], stage, words=words)
    assert {router for router, *_ in seen} == {"sailplane", *(["glider"] if words else [])}
    assert len(steps) == 5
    assert all(done == total > 0 for done, total in steps.values())
    assert ("statement_map" in engine.library.calibration_tensors()) == words
    assert engine.routing.metric is not None
    assert engine.routing.calibration.model_copy(update={"tensors": None}) == constants
    assert constants.fitted_on == ("weather",)
    assert constants.joined_later("mood")
    assert engine.library.get("weather").read_artefacts().inputs is not None


def test_until_all_is_known_the_library_stays_as_it_is(engine, library, weather):
    before, seen = files_of(library), []

    def look(what):
        seen.append((what, files_of(library)))

    calibrate(engine, [weather], stages(look), words=False, refer=lambda _: look("refer") or {})
    assert {what for what, _ in seen} > {"Writing", "refer"}
    written = next(i for i, (what, _) in enumerate(seen) if what == "Writing")
    assert len(seen) > written + 1 > 10
    assert all(files == before for _, files in seen[: written + 1])
    assert files_of(library) != before


@pytest.mark.parametrize("at", [0, 1, 8, 15, 22])
def test_a_kill_leaves_the_old_constants_and_sound_experts(engine, library, weather, at):
    """At the first change of a file nothing has changed yet, however long all before it took."""
    before = files_of(library)
    assert not run_killed(lambda: calibrate(engine, [weather], stages(), words=False), at=at)
    if at == 0:
        assert files_of(library) == before
    shelf = Library.open(library)
    assert shelf.calibration is None
    assert shelf.verify() == {"weather": [], "mood": [], "broken": shelf.verify()["broken"]} | {
        ref: [] for ref in shelf.snapshot.kept
    }
    engine.scan()
    calibrate(engine, [weather], stages(), words=False)
    assert engine.library.get("weather").read_artefacts().inputs is not None
    assert engine.library.get("weather").manifest.version == 2
    assert engine.routing.metric is not None


def test_what_is_tried_is_what_is_in_force_afterwards(engine, library, weather, monkeypatch):
    """The library in memory and the one on disk, by which another engine routes."""
    tried, trying = [], engine.routing.trying
    monkeypatch.setattr(engine.routing, "trying", lambda b: tried.append(b) or trying(b))
    calibrate(engine, [weather], stages(), words=False)
    other = build_engine(Settings(backbone="tiny-random", library=library, threads=1))
    for now in (engine.routing.current(), other.routing.current()):
        assert tried[-1].calibration == now.calibration.model_copy(update={"tensors": None})
        assert torch.equal(tried[-1].metric.whitening_FF, now.metric.whitening_FF)
        assert torch.equal(tried[-1].placing.map_FD, now.placing.map_FD)
        mine, theirs = tried[-1].shortlist.catalogue.experts, now.shortlist.catalogue.experts
        assert [e.id for e in mine] == [e.id for e in theirs] == ["mood", "weather"]
        assert mine[0].gaussian is theirs[0].gaussian is None
        assert torch.equal(mine[1].gaussian.packed, theirs[1].gaussian.packed)


def assert_same_answer(outcome, other):
    mine, theirs = outcome.answer.probabilities, other.answer.probabilities
    assert mine == pytest.approx(theirs, abs=1e-5)


def test_a_server_follows_at_its_next_look_and_keeps_the_versions_that_callers_pin(
    engine, library, weather, monkeypatch
):
    """All but the temperature, which is the library's: here it stays that of training."""
    monkeypatch.setattr("server.trials.fit_temperature", lambda *_: TEMPERATURE)
    server = build_engine(Settings(backbone="tiny-random", library=library, threads=1))
    pinned = Selection(mode="single", experts=(Chosen(id="weather", version=1, weight=1.0),))
    routed = Sample("It rains.", Question("choice", "", (Choice("sunny"), Choice("rainy"))))
    asked = [routed, replace(routed, options=RoutingOptions(selection=pinned))]
    before, met = server.run(asked), []

    def look(what):
        server.scan()
        met.append((what, server.run(asked)))

    constants = calibrate(engine, [weather], stages(look), words=False)
    server.scan()
    after = server.run(asked)
    for what, (result, kept) in [*met, ("after", after)]:
        assert_same_answer(kept, before[1])
        if what == "Writing":  # by the old constants, whichever of the experts are written
            assert result.trace.calibration in ("uncalibrated", constants.version)
        elif what != "after":
            assert result.trace.selection == before[0].trace.selection
            assert_same_answer(result, before[0])
    assert after[0].trace.calibration == constants.version
    assert server.library.get("weather").manifest.version == 2


def test_what_others_change_meanwhile_stays_theirs(engine, library, weather, caplog):
    """An expert that is removed does not come back, and a card that is reworded stays so."""

    def change(what):
        if what.startswith("Answering") and "weather" in (shelf := Library.open(library)).entries:
            shelf.remove("weather")

    constants = calibrate(engine, [weather], stages(change), words=False)
    assert "weather" not in engine.library.entries
    assert not (library / "weather").exists()
    assert "expert weather stays as it is" in caplog.text
    assert engine.routing.calibration.version == constants.version


def test_a_task_whose_expert_cannot_be_served_is_told_before_anything_is_done(engine, tmp_path):
    with pytest.raises(UnknownExpert, match="broken"):
        calibrate(engine, [Task(tmp_path / "broken")], stages(pytest.fail))


def test_a_reference_is_made_by_the_constants_and_written_with_them(engine, weather, monkeypatch):
    seen, written = [], []
    reference = Reference(count=1, edges=(), shares=(1.0,), first={"weather": 1.0})

    def refer(constants):
        seen.append((constants, engine.routing.calibration, engine.library.calibration))
        return {"input": reference}

    write = engine.library.write_calibration
    monkeypatch.setattr(
        engine.library, "write_calibration", lambda c, t: written.append(c) or write(c, t)
    )
    constants = calibrate(engine, [weather], stages(), words=False, refer=refer)
    [(told, in_force, stored)] = seen
    assert told == in_force == constants.model_copy(update={"reference": {}})
    assert stored is None
    assert len(written) == 1
    assert engine.routing.calibration.reference == {"input": reference}


def test_nothing_set_aside_changes_nothing(engine, score):
    score(lambda _: None)
    assert calibrate_rule(Trial(engine, {}), START, []).gamma == START.gamma


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


OLD = {
    "version": "old",
    "views": {"instruction": 21.9, "choices": 12.8, "labels": 10.9, "input": 66.1},
    "floors": {"input": 0.73},
}
"""As versions wrote them whose libraries had no metric."""


def test_constants_of_an_older_version_are_told_once_and_go_on_until_there_are_others(
    library, weather, caplog
):
    (library / "calibration.json").write_text(json.dumps(OLD))
    engine = build_engine(Settings(backbone="tiny-random", library=library, threads=1))
    engine.library.remove("mood")
    [outcome] = engine.run([Sample("It rains.", Question("choice", "", (Choice("sunny"),)))])
    assert outcome.trace.selection.ids == ("weather",)
    assert (outcome.trace.calibration, outcome.trace.calibration_note) == ("old", DATED)
    assert caplog.text.count(DATED) == 1
    calibrate(engine, [weather], stages(), words=False)
    assert engine.routing.calibration_note is None
    assert build_engine(
        Settings(backbone="tiny-random", library=library, threads=1)
    ).routing.calibration_note is None  # fmt: skip
    assert caplog.text.count(DATED) == 1


@pytest.mark.parametrize("stored", [{"views": {"input": 1}}, {"gamma": "much"}, {"delta": 1}])
def test_constants_that_nobody_wrote_stop_the_start(library, stored):
    (library / "calibration.json").write_text(json.dumps(stored))
    with pytest.raises(CorruptExpert, match=r"calibration\.json"):
        build_engine(Settings(backbone="tiny-random", library=library, threads=1))
