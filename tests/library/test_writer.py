"""The library that is shipped to write text: whole, small, and each expert worth its place.

Asked over HTTP, with the app in this process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from benchmarks.generation.tasks import TASKS
from benchmarks.generation.wordings import NEW, SAID
from experts.backbones.demo import demo_path
from experts.errors import BackboneError
from experts.library import Library
from server.build import build_app
from server.settings import read_settings

ROOT = Path(__file__).parents[2]
WRITER = ROOT / "library" / "writer"
BACKBONE = "byte-llama-3m"
MOST_BYTES = 14_000_000
FILES = {".safetensors", ".json", ".jinja", ".md", ".toml"}
TASK = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@pytest.fixture(scope="module")
def client(monkeypatch_module) -> Iterator[TestClient]:
    """The server that `make serve-text` starts."""
    try:
        demo_path()
    except BackboneError as error:
        pytest.skip(error.message)
    monkeypatch_module.chdir(ROOT)
    settings = read_settings({"threads": 1}, WRITER / "sailplane.toml").settings
    with TestClient(build_app(settings)) as client:
        yield client


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def ask(client: TestClient, model: str, text: str, instruction: str) -> tuple[str, list[str]]:
    """What is written, and by whom."""
    messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
    body = {"model": model, "messages": messages, "temperature": 0, "max_completion_tokens": 40}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    experts = told["routing"]["selection"]["experts"]
    return told["choices"][0]["message"]["content"], [expert["id"] for expert in experts]


@TASK
def test_a_routed_expert_writes_what_the_bare_backbone_does_not(client, task):
    """Asked by words that describe it, and by words that nothing in the library has seen."""
    told = [(SAID[task.id][0], task.tests(3)), (task.unseen, task.tests(6)[3:])]
    right = []
    for instruction, tests in told:
        for text, answer in tests:
            bare, nobody = ask(client, BACKBONE, text, instruction)
            said, experts = ask(client, "auto", text, instruction)
            assert nobody == []
            assert experts[0] == task.id
            right.append((said == answer, bare != answer))
    assert sum(said and bare for said, bare in right) >= 5


def test_one_word_is_written_by_whom_the_instruction_names(client):
    found = {task.id: ask(client, "auto", "melon", SAID[task.id][0]) for task in TASKS.values()}
    assert found["reverse-word"] == ("nolem", ["reverse-word"])
    assert found["count-vowels"] == ("2", ["count-vowels"])
    assert found["upper-case"] == ("MELON", ["upper-case"])


def test_a_stream_says_the_same_and_who_wrote_it(client):
    body = {"model": "auto", "prompt": "melon\n", "stream": True, "temperature": 0,
            "routing": {"instruction": SAID["reverse-word"][0]}}  # fmt: skip
    with client.stream("POST", "/v1/completions", json=body) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    chunks = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]"
    assert "".join(c["text"] for chunk in chunks for c in chunk["choices"]) == "nolem"
    [prompt] = chunks[-1]["routing"]["prompts"]
    assert prompt["selection"]["experts"][0]["id"] == "reverse-word"


def test_every_file_is_as_its_manifest_lists_it():
    library = Library.open(WRITER)
    assert set(library.entries) == set(TASKS)
    assert not library.bad
    assert not any(library.verify().values())
    for entry in library.entries.values():
        assert entry.manifest.provenance["licence"] == "Apache-2.0"
        assert {"gate", "arrow"} == set(entry.read_artefacts().vectors)
        assert entry.manifest.backbone.id == BACKBONE
    assert set(library.calibration["fitted_on"]) == set(TASKS)


def test_it_is_small_and_holds_weights_and_plain_text_alone():
    files = [
        path
        for path in WRITER.rglob("*")
        if path.is_file() and not {".versions", ".embeddings", ".lock"} & {*path.parts}
    ]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    assert {path.suffix for path in files} <= FILES
    for path in files:
        if path.suffix != ".safetensors":
            assert str(ROOT) not in path.read_text("utf-8")


def test_its_card_says_what_was_measured():
    text = (WRITER / "README.md").read_text("utf-8")
    assert f"`{BACKBONE}`" in text
    for id, entry in Library.open(WRITER).entries.items():
        scores = entry.manifest.scores
        told = (100 * scores["bare_written"], 100 * scores["expert_written"])
        assert f"| {id} | {TASKS[id].title} | {told[0]:.1f} | {told[1]:.1f} |" in text
        assert f"| {id} | made by code: benchmarks/generation | Apache-2.0 |" in text


def test_no_measured_wording_is_in_it():
    for id, entry in Library.open(WRITER).entries.items():
        manifest = entry.manifest
        said = {*manifest.instructions, manifest.instruction_unseen}
        assert said == {*SAID[id], *TASKS[id].instructions}
        assert said.isdisjoint({TASKS[id].unseen, NEW[id]})
