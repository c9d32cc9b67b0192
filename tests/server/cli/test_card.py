"""`sailplane card` writes the README of a library."""

import shutil

import pytest

from experts.library import Library
from experts.manifest import Manifest
from experts.writing import write_scores


@pytest.fixture
def card(run):
    return lambda root: run("card", "--library", str(root))


def test_the_readme_says_what_the_manifests_say(card, library):
    entry = Library.open(library).get("mood")
    write_scores(entry, {"bare_choices": 0.5, "expert_choices": 0.9125})
    result = card(library)
    assert result.exit_code == 0, result.output
    text = (library / "README.md").read_text()
    assert "2 experts for the backbone `tiny-random`" in text
    assert entry.manifest.backbone.fingerprint[:12] in text
    assert "| mood | About mood | 50.0 | 91.2 | - | - |" in text
    assert "| weather | About weather | - | - | - | - |" in text
    assert "| **mean** |  | 50.0 | 91.2 | - | - |" in text, "of those that were measured"
    assert "CC0" in text
    assert not Library.open(library).bad, "a README is no expert"


def test_a_library_without_experts_is_told(card, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    result = card(empty)
    assert result.exit_code == 1
    assert "there are no experts" in result.output
    assert not (empty / "README.md").exists()


def test_one_expert_is_one(card, library):
    shutil.rmtree(library / "weather")
    assert card(library).exit_code == 0
    assert "1 expert for the backbone" in (library / "README.md").read_text()


def test_experts_that_write_are_told_of_as_such(card, library):
    for id, right in (("mood", 0.9), ("weather", 0.7)):
        write_scores(Library.open(library).get(id), {"bare_written": 0.0, "expert_written": right})
    (library / "tiny-random").mkdir()
    (library / "sailplane.toml").write_text("")
    assert card(library).exit_code == 0
    text = (library / "README.md").read_text()
    assert "| expert | what it does | bare | expert |\n|---|---|---|---|\n" in text
    assert "| mood | About mood | 0.0 | 90.0 |" in text
    assert "| **mean** |  | 0.0 | 80.0 |" in text
    assert "texts that greedy decoding writes exactly" in text
    assert "lies beside them, in `tiny-random`" in text
    assert f"sailplane serve --config {library}/sailplane.toml" in text
    assert "reworded" not in text
    assert text.endswith("`card` made the rest.\n")


def test_each_recipe_is_told_once_with_its_experts(card, library):
    for id, recipe in (("mood", "{}"), ("weather", '{"steps": 5}')):
        path = library / id / "expert.json"
        manifest = Manifest.model_validate_json(path.read_text())
        told = manifest.model_copy(update={"provenance": {"recipe": recipe, "source": "ours"}})
        path.write_text(told.model_dump_json())
    assert card(library).exit_code == 0
    text = (library / "README.md").read_text()
    assert 'mood:\n\n```json\n{}\n```\n\nweather:\n\n```json\n{"steps": 5}\n```' in text
    assert "| mood | ours |  |" in text, "no commit, no @"
