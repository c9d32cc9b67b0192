"""`sailplane train` resumes, tells what is missing, and trains nothing it should not."""

import json
from pathlib import Path

import httpx
import pytest

from experts.library import Library
from experts.manifest import BackboneRef, Manifest
from experts.training.recipe import Recipe
from server.build import build_app
from server.settings import Settings
from tests.sockets import on_socket

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


@pytest.mark.slow
def test_from_texts_to_a_measured_library_that_writes(run, tmp_path):
    """The folders as a newcomer makes them: plain files of inputs and outputs."""
    for name, output in (("next", "up"), ("same", "on")):
        folder = tmp_path / "texts" / name
        folder.mkdir(parents=True)
        about = {"instructions": [f"Say the {name} number.", f"Give the {name} one."],
                 "instruction_unseen": f"Which is the {name}?"}  # fmt: skip
        (folder / "task.json").write_text(json.dumps(about))
        lines = [json.dumps({"input": str(i), "output": output}) for i in range(40)]
        for split in ("train", "test"):
            (folder / f"{split}.jsonl").write_text("\n".join(lines))
    place = ("--backbone", "tiny-causal", "--library", str(tmp_path / "made"))
    data = ("--tasks", str(tmp_path / "texts"), *place)
    for command in (("train", "--workers", "1"), ("fit", "--calibrate", "--workers", "1")):
        done = run(*command, *data)
        assert done.exit_code == 0, done.output
    figures = tmp_path / "figures.json"
    asked = ("--sees", "instruction", "--router", "base,oracle", "--limit", "10", "--record")
    measured = run("evaluate", *data, *asked, "--json", str(figures))
    assert measured.exit_code == 0, measured.output
    means = json.loads(figures.read_text())["means"]
    assert means["oracle"] > 0.8 > 0.1 > means["base"]
    library = Library.open(tmp_path / "made")
    assert library.get("next").manifest.scores.keys() == {"bare_written", "expert_written"}
    assert library.get("next").manifest.instruction_unseen == "Which is the next?"
    assert library.get("same").read_artefacts().vectors.keys() == {"gate", "arrow"}
    assert run("card", "--library", str(tmp_path / "made")).exit_code == 0
    told = run("evaluate", *data, "--sees", "instruction", "--router", "base", "--limit", "1")
    assert "By the input alone" not in told.output


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
    said = f"--tasks {tasks.parent} --calibrate --backbone tiny-random --library {library}"
    assert f"Next: sailplane fit {said}\n" in result.output
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
    assert manifest.title == "2 tasks together"
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
    with on_socket(app) as served:
        yield served.url


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
