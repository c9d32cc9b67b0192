"""`sailplane experts merge`: the expert it adds, the report it prints, and what it refuses."""

import json

import pytest

from experts.atomic import LOCK


@pytest.fixture
def merge(run, library):
    """`merge("both", "--of", "mood,weather")` in the small library."""
    return lambda *said: run(
        "experts", "merge", *said, "--library", str(library), "--backbone", "tiny-random"
    )


def shown(run, library, id):
    return json.loads(run("experts", "show", id, "--library", str(library)).stdout)


def test_a_merge_is_added_with_its_provenance_and_reported(run, library, merge):
    result = merge("both", "--of", "mood,weather", "--rule", "ties", "--param", "density=0.5",
                   "--title", "Both of them", "--tag", "team")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Added both@1, merged by ties." in result.output
    assert [line.split()[1] for line in result.stdout.splitlines() if "│" in line] == [
        "mood", "weather",
    ]  # fmt: skip
    told = shown(run, library, "both")
    assert (told["title"], told["tags"]) == ("Both of them", ["team"])
    assert told["provenance"]["sources"] == "mood@1, weather@1"
    assert json.loads(told["provenance"]["parameters"]) == {"density": 0.5, "lambda": 1.0}
    assert told["provenance"]["licence"] == "CC0"
    assert told["artefacts"] == {"sites": {}}


def test_weights_may_be_negative_where_the_rule_takes_them(run, library, merge):
    assert merge("hub", "--of", "mood,weather", "--rule", "lorahub", "--weights", "-1,0.5"
                 ).exit_code == 0  # fmt: skip
    assert json.loads(shown(run, library, "hub")["provenance"]["weights"]) == [-1.0, 0.5]
    refused = merge("mean", "--of", "mood,weather", "--weights", "-1,0.5")
    assert refused.exit_code == 1
    assert "not negative" in refused.output


def test_a_taken_id_needs_replace_and_a_rank_tells_what_it_lost(merge):
    assert merge("both", "--of", "mood,weather").exit_code == 0
    assert merge("both", "--of", "mood,weather").exit_code == 1
    result = merge("both", "--of", "mood@1", "--rank", "1", "--replace")
    assert "Added both@2, merged by average, " in result.output
    assert "of the delta lost" in result.output


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        (("--rule", "mean"), 1, "these are: average"),
        (("--param", "density"), 2, "--param: '' is not a number"),
        (("--param", "density=much"), 2, "'much' is not a number"),
        (("--param", "density=0.5"), 1, "no parameter 'density'"),
        (("--weights", "1,,1"), 2, "--weights: '' is not a number"),
        (("--of", "mood,wether"), 1, "Did you mean weather?"),
        (("--of", ","), 1, "one expert at least"),
        (("--library", "nowhere"), 1, "nowhere: there is no such library"),
    ],
)
def test_a_wrong_wish_is_told_and_changes_nothing(run, library, said, code, reason):
    (library / LOCK).touch()  # whoever opens a library leaves that
    before = sorted(library.iterdir())
    asked = {"--of": "mood,weather", "--library": str(library), "--backbone": "tiny-random"}
    asked |= {said[0]: said[1]}
    result = run("experts", "merge", "both", *[text for pair in asked.items() for text in pair])
    assert result.exit_code == code
    assert reason in result.output.replace("\n", " ")
    assert sorted(library.iterdir()) == before
