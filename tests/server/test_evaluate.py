"""How examples are put under each condition, and what is counted."""

import json
import random

import pytest

from experts.manifest import Label, TaskCard, Wording
from experts.training.data import Example, Task
from experts.writing import write_scores
from routers.types import Selection
from server.engine.messages import Answer, Choice, Outcome, Trace
from server.errors import RequestError
from server.evaluate import Asked, foreign_words, is_right, measure, put, record_scores

EXAMPLE = Example("Not a cloud to be seen.", ("sunny", "rainy", "windy"), 1)
CARD = TaskCard(
    id="weather", title="Weather", instructions=("Say what the weather is like.",),
    instruction_unseen="How is the sky?",
    labels=(
        Label(
            value="sunny", wordings=(Wording(value="bright"),),
            unseen=Wording(value="radiant", description="full of light"),
        ),
        Label(value="rainy", wordings=(Wording(value="wet"),), unseen=Wording(value="pouring")),
        Label(value="windy", wordings=(Wording(value="gusty"),), unseen=Wording(value="blowy")),
    ),
)  # fmt: skip
MOOD = TaskCard(id="mood", title="Mood", labels=(Label(value="happy"), Label(value="sad")))
WORDS = foreign_words({"weather": CARD, "mood": MOOD})
UNSEEN = {"radiant: full of light", "pouring", "blowy"}


def asked(sees, seed=0, card=CARD, words=WORDS):
    return put(EXAMPLE, card, sees, random.Random(seed), words)


@pytest.mark.parametrize("sees", ["input", "choices"])
def test_choices_come_as_they_are(sees):
    choices = (Choice("sunny"), Choice("rainy"), Choice("windy"))
    assert asked(sees) == Asked(EXAMPLE.input, choices, "", 1)


def test_the_instruction_is_one_never_fitted_on():
    assert asked("instruction").instruction == "How is the sky?"
    assert asked("instruction", card=None).instruction == ""
    assert asked("instruction", card=MOOD).instruction == ""


def test_reworded_labels_are_unseen_ones_and_one_foreign():
    places, foreign = set(), set()
    for seed in range(60):
        put_so = asked("reworded", seed)
        texts = [c.text for c in put_so.choices]
        assert texts[put_so.answer] == "pouring", "the answer follows the shuffle"
        assert len(texts) == len(set(texts)) == 4
        (other,) = set(texts) - UNSEEN
        foreign.add(other)
        places.add(put_so.answer)
        assert put_so.instruction == ""
    assert places == {0, 1, 2, 3}
    assert foreign == {"happy", "sad"}, "never a known wording of the task itself"


def test_reworded_without_a_card_keeps_the_names_and_adds_a_foreign_one():
    texts = {c.text for c in asked("reworded", card=None).choices}
    assert texts > set(EXAMPLE.options)
    assert texts - set(EXAMPLE.options) <= {"happy", "sad"}


def test_with_nothing_foreign_left_a_neutral_choice_is_added():
    texts = [c.text for c in asked("reworded", words=["sunny", "rainy", "pouring"]).choices]
    assert "none of these" in texts


def test_the_same_seed_puts_it_the_same_way():
    assert asked("reworded", 3) == asked("reworded", 3)


def outcome(*probabilities):
    return Outcome(Answer(probabilities), Trace("default", Selection(mode="base")), 3)


def test_the_most_probable_choice_counts_no_refusal_and_an_error_is_raised():
    question = asked("choices")
    assert is_right(outcome(0.2, 0.5, 0.3), question)
    assert not is_right(outcome(0.5, 0.2, 0.3), question)
    assert not is_right(outcome(), question)
    with pytest.raises(RequestError):
        is_right(RequestError("no"), question)


@pytest.fixture
def tasks(tmp_path):
    """Tasks `weather`, which has an expert, and `flight`, which has none."""
    options = {"weather": ("sunny", "rainy", "windy"), "flight": ("launch", "landing")}
    made = []
    for name, labels in options.items():
        task = Task(tmp_path / name)
        examples = tuple(Example(f"{name} {i}", labels, i % 2) for i in range(6))
        task.__dict__["test"] = examples
        task.__dict__["_train_file"] = tuple(
            Example(f"train {name} {i}", labels, i % 2) for i in range(40)
        )
        made.append(task)
    return made


def test_measuring_gives_means_and_tasks(engine, tasks):
    told: list[int] = []
    result = measure(
        engine, tasks, ["default", "base", "oracle"], "choices", {}, 5, progress=told.append
    )
    assert result.keys() == {"means", "tasks"}
    assert result["tasks"].keys() == {"weather", "flight"}
    assert result["tasks"]["flight"]["oracle"] is None, "no expert of its own"
    assert result["means"]["oracle"] == result["tasks"]["weather"]["oracle"]
    for row in result["tasks"].values():
        assert set(row) == {"default", "base", "oracle"}
        assert all(v is None or 0 <= v <= 1 for v in row.values())
        assert row["base"] * 5 == pytest.approx(round(row["base"] * 5))
    two = [row["base"] for row in result["tasks"].values()]
    assert result["means"]["base"] == pytest.approx(sum(two) / 2)
    assert told == [5] * 6
    assert json.loads(json.dumps(result)) == result


def test_the_oracle_is_the_tasks_own_expert(engine, tasks, monkeypatch):
    models = []
    run = engine.run
    monkeypatch.setattr(
        engine, "run", lambda samples: models.extend(s.model for s in samples) or run(samples)
    )
    measure(engine, tasks[:1], ["oracle"], "choices", {})
    assert models == ["weather"] * 6


@pytest.mark.parametrize("sees", ["input", "choices", "instruction", "reworded"])
def test_routers_see_no_more_than_the_condition_says(engine, tasks, monkeypatch, sees):
    samples = []
    run = engine.run
    monkeypatch.setattr(engine, "run", lambda batch: samples.extend(batch) or run(batch))
    measure(engine, tasks[:1], ["default"], sees, {"weather": CARD}, 3)
    assert {s.model for s in samples} == {"auto"}
    assert {s.options.sees for s in samples} == {"choices" if sees == "reworded" else sees}
    expected = "How is the sky?" if sees == "instruction" else None
    assert {s.options.instruction for s in samples} == {expected}
    assert {s.question.instructions for s in samples} == {""}, "what writes would read it too"


def test_calibration_asks_set_aside_examples_only(engine, tasks, monkeypatch):
    inputs = []
    run = engine.run
    monkeypatch.setattr(
        engine, "run", lambda batch: inputs.extend(s.input for s in batch) or run(batch)
    )
    measure(engine, tasks, ["default"], "input", {}, aside=True)
    assert sorted(inputs) == sorted(e.input for t in tasks for e in t.aside)
    assert inputs


def test_scores_are_noted_in_the_manifests(engine):
    write_scores(engine.library.get("weather"), {"expert_input": 0.5})
    engine.library.refresh()
    rows = {
        "weather": {"base": 0.25, "oracle": 0.87654, "default": 0.9},
        "flight": {"base": 0.5, "oracle": None},
    }
    record_scores(engine.library, {"means": {}, "tasks": rows}, "reworded")
    engine.library.refresh()
    assert engine.library.get("weather").manifest.scores == {
        "expert_input": 0.5,
        "bare_reworded": 0.25,
        "expert_reworded": 0.8765,
    }
    assert not engine.library.get("mood").manifest.scores
    assert set(engine.library.bad) == {"broken"}


def test_a_text_to_write_is_scored_and_no_router_sees_it(engine, tmp_path, monkeypatch):
    task = Task(tmp_path / "weather")
    task.__dict__["test"] = tuple(Example(f"day {i}", (f"text {i}",), 0) for i in range(5))
    seen = []

    def score(_engine, texts, samples):
        seen.extend(zip(texts, samples, strict=True))
        return [0.5 * (text == "text 3") for text in texts]

    for sees in ("input", "choices", "reworded", "instruction"):
        seen.clear()
        result = measure(engine, [task], ["default"], sees, {"weather": CARD}, written=score)
        assert result["means"]["default"] == pytest.approx(0.1)
        assert sorted(text for text, _ in seen) == [f"text {i}" for i in range(5)]
        for text, sample in seen:
            assert sample.question.choices == (Choice(text),)
            assert sample.options.sees == ("instruction" if sees == "instruction" else "input")


def test_scores_of_texts_are_noted_as_such(engine):
    row = {"base": 0.1, "oracle": 0.9}
    result = {"means": {}, "tasks": {"weather": row, "mood": row}}
    record_scores(engine.library, result, "input", {"weather"})
    engine.library.refresh()
    scores = {id: engine.library.get(id).manifest.scores for id in ("weather", "mood")}
    assert scores["weather"] == {"bare_written": 0.1, "expert_written": 0.9}
    assert scores["mood"] == {"bare_input": 0.1, "expert_input": 0.9}
