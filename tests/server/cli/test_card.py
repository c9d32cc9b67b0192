"""`sailplane card` writes the README of a library."""

import pytest

from experts.library import Library
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
