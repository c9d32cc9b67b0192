"""The temperature of answers: that of least loss, and no answer changes by it."""

import gzip
import json
import math
import random

import pytest

import server.temperature
from experts.training.data import Task
from routers.calibration import TEMPERATURE, Calibration
from server.engine.messages import Choice, Question, RoutingOptions, Sample
from server.temperature import fit_temperature

OPTIONS = ("sunny", "rainy", "cloudy")
COUNT = 900


def asked(count):
    """The default router's question of each of so many days."""
    question = Question("choice", choices=tuple(Choice(o) for o in OPTIONS))
    options = RoutingOptions(sees="choices", truncate=True, trace="none")
    return [Sample(f"day {i}", question, options=options) for i in range(count)]


def probabilities(engine, temperature, count=COUNT):
    constants = Calibration(temperature=temperature)
    with engine.routing.trying(engine.routing.current().under(constants)):
        return [o.answer.probabilities for o in engine.run(asked(count))]


def task_of(folder, answers):
    """A task of these answers."""
    task = Task(folder / "weather")
    task.folder.mkdir(parents=True)
    with gzip.open(task.folder / "train.jsonl.gz", "wt") as file:
        for i, answer in enumerate(answers):
            row = {"input": f"day {i}", "options": OPTIONS, "answer": answer}
            file.write(json.dumps(row) + "\n")
    return task


def test_a_higher_temperature_is_less_sure_and_answers_the_same(engine):
    cold, warm = (probabilities(engine, t, 40) for t in (0.05, 0.1))
    for one, other in zip(cold, warm, strict=True):
        assert max(one) > max(other)
        assert one.index(max(one)) == other.index(max(other))
        ratio = math.log(one[0] / one[1]) / math.log(other[0] / other[1])
        assert ratio == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("real", [0.03, 0.12])
def test_it_is_found_where_answers_are_right_as_often_as_they_say(
    engine, tmp_path, monkeypatch, real
):
    """The answers are drawn from what the engine says at a temperature, and another is in force."""
    monkeypatch.setattr(server.temperature, "SEEN", ("choices",))
    rng = random.Random(3)
    answers = [rng.choices(range(3), p)[0] for p in probabilities(engine, real)]
    task = task_of(tmp_path, answers)
    assert len(task.aside) > 80
    steps = []
    found = fit_temperature(engine, [task], {}, COUNT, lambda: steps.append(1))
    assert found == pytest.approx(real, rel=0.5)
    assert abs(found - real) < abs(TEMPERATURE - real)
    assert steps == [1]
    other = Calibration(temperature=0.07)
    with engine.routing.trying(engine.routing.current().under(other)):
        again = fit_temperature(engine, [task], {}, COUNT)
    assert again == pytest.approx(found, rel=0.03), "whatever is in force while it asks"


def test_nothing_set_aside_leaves_that_of_training(engine):
    assert fit_temperature(engine, [], {}, 24) == TEMPERATURE
