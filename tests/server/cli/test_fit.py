"""`sailplane fit` on a small library: what it skips and what it refuses."""

from pathlib import Path

import pytest

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
