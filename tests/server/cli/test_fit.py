"""`sailplane fit` on a small library: what it skips and what it refuses."""

import gzip
import json
from pathlib import Path

import pytest

from experts.library import Library
from routers.calibration import Calibration
from routers.metric import Metric

TASKS = Path(__file__).parents[2] / "data" / "tasks"


@pytest.fixture
def fit(run, library):
    return lambda *more: run(
        "fit", *more, "--backbone", "tiny-random", "--library", str(library)
    )  # fmt: skip


def test_fitted_experts_and_tasks_without_an_expert_are_left_alone(fit, library, tmp_path):
    for name in ("weather", "flight"):
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True)
        (folder / "task.json").write_text("{}")
    before = (library / "weather" / "expert.json").read_bytes()
    result = fit("--tasks", str(tmp_path / "tasks"))
    assert result.exit_code == 0, result.output
    assert "1 of 1 experts are fitted already." in result.output
    assert (library / "weather" / "expert.json").read_bytes() == before
    assert not (library / "flight").exists()


def test_a_folder_without_tasks_is_told(fit, tmp_path):
    result = fit("--tasks", str(tmp_path / "nothing"))
    assert result.exit_code == 1
    assert "no task folders" in result.output


def test_a_task_that_is_not_there_is_told(fit):
    result = fit("--tasks", str(TASKS), "--only", "nowhere")
    assert result.exit_code == 1
    assert "no task nowhere" in result.output


def test_without_set_aside_examples_there_is_nothing_to_calibrate_on(fit, library):
    result = fit("--tasks", str(TASKS), "--only", "subj", "--calibrate")
    assert result.exit_code == 1
    assert "nothing to calibrate on" in result.output
    assert not (library / "calibration.json").exists()


@pytest.fixture
def weather_task(tmp_path):
    """A folder of one task, whose expert the library has."""
    folder = tmp_path / "tasks" / "weather"
    folder.mkdir(parents=True)
    (folder / "task.json").write_text("{}")
    with gzip.open(folder / "train.jsonl.gz", "wt") as file:
        for i in range(40):
            row = {"input": f"day {i}", "options": ["yes", "no"], "answer": 0}
            file.write(json.dumps(row) + "\n")
    return folder.parent


def test_a_reference_is_noted_and_the_constants_stay(fit, library, weather_task):
    constants = Calibration(version="mine", threshold=0.7)
    path = library / "calibration.json"
    path.write_text(constants.model_dump_json())
    result = fit("--tasks", str(weather_task), "--reference")
    assert result.exit_code == 0, result.output
    stored = Calibration.model_validate_json(path.read_text())
    assert stored.model_copy(update={"reference": {}}) == constants
    assert set(stored.reference) == {"input", "choices"}, "its card has no unseen instruction"


def test_a_library_without_constants_gets_no_reference(fit, library, weather_task):
    result = fit("--tasks", str(weather_task), "--reference")
    assert result.exit_code == 1
    assert "start with --calibrate" in result.output
    assert not (library / "calibration.json").exists()


def test_constants_are_set_once_and_experts_told_of_their_inputs(fit, library, weather_task):
    result = fit("--tasks", str(weather_task), "--calibrate")
    assert result.exit_code == 0, result.output
    constants = Calibration.model_validate_json((library / "calibration.json").read_text())
    assert constants.version != "uncalibrated"
    assert set(constants.reference) == {"input", "choices"}
    assert not constants.confidence, "two experts teach nothing of one that is missing"
    shelf = Library.open(library)
    metric = Metric.from_tensors(shelf.calibration_tensors(), 64)
    assert metric is not None
    artefacts = shelf.get("weather").read_artefacts()
    assert artefacts.inputs.shape[1] == 64
    assert artefacts.seen > 0
    assert artefacts.instructions is not None, "what is told in words stays"
    assert shelf.get("mood").read_artefacts().inputs is None, "its data is not here"

    version = shelf.get("weather").manifest.version
    assert fit("--tasks", str(weather_task), "--calibrate").exit_code == 0
    again = Calibration.model_validate_json((library / "calibration.json").read_text())
    assert again == constants
    assert Library.open(library).get("weather").manifest.version == version


def test_constants_of_an_older_version_are_no_hindrance(fit, library, weather_task):
    views = {"instruction": 21.9, "choices": 12.8, "labels": 10.9, "input": 66.1}
    told = {"version": "old", "views": views, "floors": {"input": 0.73}}
    (library / "calibration.json").write_text(json.dumps(told))
    result = fit("--tasks", str(weather_task), "--calibrate")
    assert result.exit_code == 0, result.output
    constants = Calibration.model_validate_json((library / "calibration.json").read_text())
    assert constants.version != "old"
