"""The reference: how set-aside questions are routed, kept beside the constants."""

import gzip
import json

import pytest

from experts.manifest import TaskCard
from experts.training.data import Example, Task, is_set_aside
from routers.calibration import NO_EXPERT, Calibration
from routers.types import Chosen, Selection
from server.calibrate import version_of
from server.engine.messages import Trace
from server.reference import MARKS, reference_of, references


@pytest.fixture
def tasks(tmp_path):
    """Two tasks with the experts of the small library, whose examples are all set aside or not."""
    found = []
    for name, options in (("weather", ["sunny", "rainy"]), ("mood", ["happy", "sad"])):
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True)
        (folder / "task.json").write_text(json.dumps({"options": options}))
        rows = [{"input": f"{name} {i}", "options": options, "answer": i % 2} for i in range(60)]
        with gzip.open(folder / "train.jsonl.gz", "wt") as file:
            file.writelines(f"{json.dumps(row)}\n" for row in rows)
        found.append(Task(folder))
    return found


def cards_of(engine, unseen=None):
    return {
        id: TaskCard(**{**entry.manifest.model_dump(include=set(TaskCard.model_fields)),
                        "instruction_unseen": unseen})
        for id, entry in engine.library.entries.items()
    }  # fmt: skip


def test_every_sort_of_question_is_counted_over_set_aside_examples(engine, tasks):
    constants = Calibration()
    found = references(engine, constants, tasks, cards_of(engine, "Tell it."))
    count = sum(is_set_aside(e) for task in tasks for e in task.aside)
    assert count > 4
    assert set(found) == {"input", "choices", "instruction", "all"}
    for reference in found.values():
        assert reference.count == count
        assert sum(reference.shares) == pytest.approx(1, abs=1e-4)
        assert sum(reference.first.values()) == pytest.approx(1, abs=1e-4)
        assert set(reference.first) <= {"weather", "mood", NO_EXPERT}
    assert engine.library.calibration is None, "the caller writes"


def test_without_an_instruction_that_nobody_holds_those_sorts_are_left_out(engine, tasks):
    assert set(references(engine, Calibration(), tasks, cards_of(engine))) == {"input", "choices"}


def trace(confidence, *, base=False):
    chosen = () if base else (Chosen(id="mood", weight=1.0),)
    return Trace(
        "sailplane", Selection(mode="base" if base else "single", experts=chosen),
        confidence=confidence,
    )  # fmt: skip


def test_bins_by_hand():
    found = reference_of([*(trace(i / 10) for i in range(10)), trace(0.0, base=True)])
    assert found.edges == tuple(sorted({*(i / 10 for i in range(1, 9)), *MARKS}))
    assert found.shares[0] == pytest.approx(2 / 11, abs=1e-6)
    assert found.first == {"mood": round(10 / 11, 6), NO_EXPERT: round(1 / 11, 6)}


def test_confidences_that_crowd_are_still_told_from_low_ones():
    found = reference_of([trace(1.0)] * 20)
    assert found.shares == (0, 0, 0, 1)
    assert [found.bin_of(c) for c in (0.2, 0.6, 0.9, 0.9999)] == [0, 1, 2, 3]


def test_the_version_does_not_name_it():
    reference = reference_of([trace(1.0)])
    constants = Calibration()
    noted = constants.model_copy(update={"reference": {"input": reference}})
    assert version_of(noted, {}) == version_of(constants, {})


def test_nobody_offers_choices_for_a_text_to_write(engine, tasks):
    weather, mood = tasks
    written = Task(weather.folder)
    written.__dict__["_train_file"] = tuple(
        Example(f"weather {i}", ("Rain.",), 0) for i in range(60)
    )
    found = references(engine, Calibration(), [written, mood], cards_of(engine, "Tell it."))
    assert found["input"].count > found["choices"].count == len(mood.aside)
    assert found["instruction"].count > found["all"].count == len(mood.aside)
