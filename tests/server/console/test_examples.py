"""Something to try each expert with: the shipped ones too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.console.examples import example, examples

LIBRARY = Path(__file__).parents[3] / "library"
SHIPPED = sorted(
    path for name in ("minilm", "writer") for path in (LIBRARY / name).glob("*/expert.json")
)


def expert(**said):
    usual = {
        "id": "mood",
        "title": "Mood",
        "instructions": ["Tell the mood."],
        "labels": ["happy", "sad"],
        "samples": [{"input": "Hm.", "answer": "sad", "choices": []}],
    }
    return usual | said  # fmt: skip


def test_an_example_asks_with_the_experts_own_words_and_does_not_name_it():
    found = example(expert(), "text")
    assert (found.expert, found.title, found.answer) == ("mood", "Mood", "sad")
    assert (found.wish.sort, found.wish.text) == ("choice", "Hm.")
    assert (found.wish.instruction, found.wish.options) == ("Tell the mood.", ("happy", "sad"))
    assert "mood" not in json.dumps(found.wish.body()).replace("Tell the mood.", "")


def test_a_sample_may_bring_its_own_choices():
    sample = {"input": "Hm.", "answer": "b", "choices": ["a", "b"]}
    assert example(expert(samples=[sample]), "text").wish.options == ("a", "b")


@pytest.mark.parametrize("sort", ["text", "chat"])
def test_where_there_is_nothing_to_choose_from_it_is_written(sort):
    assert example(expert(labels=[]), sort).wish.sort == sort


def test_who_brings_no_sample_has_no_example():
    said = {"a": expert(id="a"), "b": expert(id="b", samples=[])}
    assert [e.expert for e in examples(said, "text")] == ["a"]
    bare = expert(title="", instructions=[])
    assert example(bare, "text").title == "mood"
    assert example(bare, "text").wish.instruction == ""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
def test_every_shipped_expert_can_be_tried(path):
    said = json.loads(path.read_text("utf-8"))
    for sample in said["samples"]:
        options = sample.get("choices") or [label["value"] for label in said["labels"]]
        assert sample["input"].strip()
        assert not options or sample["answer"] in options
    card = LIBRARY / "tasks" / f"{path.parent.name}.json"
    if card.exists():
        assert json.loads(card.read_text("utf-8"))["samples"] == said["samples"]
