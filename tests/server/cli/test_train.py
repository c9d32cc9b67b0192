"""`sailplane train` resumes, tells what is missing, and trains nothing it should not."""

import json
import threading
import time
from pathlib import Path

import httpx
import pytest
import uvicorn

from experts.library import Library
from experts.manifest import BackboneRef, Manifest
from experts.training.recipe import Recipe
from server.build import build_app
from server.settings import Settings

TASKS = Path(__file__).parents[2] / "data" / "tasks"
CARDS = Path(__file__).parents[3] / "library" / "tasks"


@pytest.fixture
def sailplane(run, tmp_path):
    """`sailplane("train", ...)` on a library that is not there yet."""
    place = ("--backbone", "tiny-random", "--library", str(tmp_path / "made"))
    return lambda command, *more: run(command, *more, *place)


@pytest.mark.slow
def test_from_task_folders_to_a_measured_library(sailplane, run, tmp_path):
    """train -> fit --calibrate -> evaluate --record -> card; a second start finds nothing to do."""
    data = ("--tasks", str(TASKS), "--cards", str(CARDS), "--only", "subj,openbookqa,pubmedqa")
    trained = sailplane("train", *data, "--epochs", "1", "--rank", "2", "--workers", "1")
    assert trained.exit_code == 0, trained.output
    fitted = sailplane("fit", *data, "--calibrate", "--workers", "1")
    assert fitted.exit_code == 0, fitted.output

    library = Library.open(tmp_path / "made")
    assert set(library.entries) == {"openbookqa", "pubmedqa", "subj"}
    assert not library.bad
    assert library.calibration["version"] in fitted.output
    assert "statement_map" in library.calibration_tensors()
    for entry in library.entries.values():
        assert {"gate", "arrow"} == set(entry.read_artefacts().vectors)
        assert entry.read_artefacts().centroids is not None

    figures = tmp_path / "figures.json"
    measured = sailplane(
        "evaluate", *data, "--router", "default,base,oracle", "--json", str(figures), "--record"
    )
    assert measured.exit_code == 0, measured.output
    result = json.loads(figures.read_text())
    assert set(result["means"]) == {"default", "base", "oracle"}
    assert set(result["tasks"]) == set(library.entries)

    written = run("card", "--library", str(tmp_path / "made"))
    assert written.exit_code == 0, written.output
    readme = (tmp_path / "made" / "README.md").read_text()
    assert f"{100 * result['means']['oracle']:.1f}" in readme

    assert "3 of 3 experts are trained" in sailplane(
        "train", *data, "--epochs", "1", "--rank", "2"
    ).output  # fmt: skip
    assert "3 of 3 experts are fitted" in sailplane("fit", *data).output


def test_what_is_trained_already_is_not_trained_again(run, library, backbone):
    entry = Library.open(library).get("weather")
    made = Manifest(
        **{**entry.manifest.model_dump(), "provenance": {"recipe": Recipe().model_dump_json()}},
    )
    (entry.path / "expert.json").write_text(made.model_dump_json())
    tasks = library.parent / "tasks" / "weather"
    tasks.mkdir(parents=True)
    (tasks / "task.json").write_text("{}")
    result = run(
        "train", "--tasks", str(tasks.parent), "--backbone", "tiny-random",
        "--library", str(library),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "1 of 1 experts are trained already." in result.output
    assert made.backbone == BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint)
    assert Library.open(library).get("weather").manifest.version == made.version


def test_a_task_that_is_not_there_is_told(sailplane):
    result = sailplane("train", "--tasks", str(TASKS), "--only", "sst2,nowhere")
    assert result.exit_code == 1
    assert "no task nowhere" in result.output


@pytest.mark.slow
def test_one_expert_of_all_tasks(sailplane, tmp_path):
    """It is there by its name, and a second start finds nothing to do."""
    data = ("--tasks", str(TASKS), "--cards", str(CARDS), "--only", "subj,openbookqa")
    quick = (*data, "--together", "all", "--epochs", "1", "--rank", "2", "--workers", "1")
    trained = sailplane("train", *quick)
    assert trained.exit_code == 0, trained.output
    assert "sailplane fit" not in trained.output, "there is nothing to fit it by"
    manifest = Library.open(tmp_path / "made").get("all").manifest
    assert manifest.title == "All of: openbookqa, subj"
    assert not manifest.labels
    assert "1 of 1 experts are trained already." in sailplane("train", *quick).output
    assert Library.open(tmp_path / "made").get("all").manifest.version == manifest.version


@pytest.mark.parametrize(("id", "why"), [("trec", "a task has this name"), ("../x", "expert's id")])
def test_an_id_that_one_expert_of_all_tasks_cannot_have(sailplane, tmp_path, id, why):
    result = sailplane("train", "--tasks", str(TASKS), "--only", "sst2", "--together", id)
    assert result.exit_code in (1, 2)
    assert why in result.output
    assert not (tmp_path / "made").exists()


@pytest.fixture
def served(tmp_path):
    """A server on a port of its own, of a library that is still empty; its address."""
    (tmp_path / "served").mkdir()
    app = build_app(
        Settings(backbone="tiny-random", library=tmp_path / "served", threads=1,
                 adapter_roots=(tmp_path / "made",))
    )  # fmt: skip
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


STREAM = ("train", "--tasks", str(TASKS), "--cards", str(CARDS), "--continual")


def test_a_stream_of_tasks_joins_a_running_server(sailplane, served, tmp_path):
    """In the order that was given; what is there already joins at once."""
    quick = (*STREAM, "--epochs", "1", "--rank", "2", "--examples", "8", "--server", served)
    first = sailplane(*quick, "--only", "trec")
    assert first.exit_code == 0, first.output
    assert f"trec@2 is served at {served} now." in first.output
    weights = tmp_path / "served" / "trec" / "adapter_model.safetensors"
    before = weights.read_bytes()
    both = sailplane(*quick, "--only", "trec,sst2", "--kind", "lora")
    assert both.exit_code == 0, both.output
    assert f"sst2@2 is served at {served} now." in both.output
    listed = httpx.get(f"{served}/v1/experts").json()["data"]
    assert {e["id"]: e["state"] for e in listed} == {"trec": "routed", "sst2": "routed"}
    assert listed[0]["provenance"]["start"].startswith("trec ")
    assert listed[0]["provenance"]["examples"] == 8
    assert weights.read_bytes() == before


def test_a_server_that_is_not_there_is_told_before_anything_is_trained(sailplane, tmp_path):
    result = sailplane(*STREAM, "--only", "trec", "--server", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "http://127.0.0.1:1/ready cannot be reached" in result.output
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--continual", "--together", "all"), "one of them, not both"),
        (("--continual", "--workers", "1"), "--workers and --continual"),
        (("--gates",), "--gates: expected --continual with it"),
        (("--server", "http://127.0.0.1:1"), "--server: expected --continual with it"),
    ],
)
def test_options_without_effect_are_refused(sailplane, options, why):
    result = sailplane("train", "--tasks", str(TASKS), "--only", "trec", *options)
    assert result.exit_code == 2
    assert why in result.output
