"""Statements nobody trained on are judged about as well as the task's own choices are picked.

The cards' unseen sentences, and all of `statements.json`, were written by somebody who had seen
neither the cards nor this code, and the map was not changed after it had met them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from server.engine.messages import Choice, Question, RoutingOptions, Sample

pytestmark = pytest.mark.slow

INPUTS, FEW_INPUTS = 150, 60
BATCH = 64
WORSE_AT_MOST = 0.03
GAP_AT_MOST = 0.15
FAIL_AT_MOST = 0.2  # of a task's blind pairs; 0.08 of all when they were first asked
OPTIONS = RoutingOptions(truncate=True, trace="none")
TASKS = ("sst2", "subj", "clickbait", "trec")
BLIND = json.loads((Path(__file__).parent / "statements.json").read_text())


@dataclass(frozen=True)
class Judged:
    """A statement and its denial about the same inputs: shares judged right, and how far p(said)
    and p(denied) are from adding up to 1 (mean)."""

    said: float
    denied: float
    gap: float

    def holds(self, needed: float) -> bool:
        return min(self.said, self.denied) >= needed and self.gap <= GAP_AT_MOST


def ask(engine, expert, inputs, question):
    """Probabilities (inputs, options) of one question about every input."""
    samples = [Sample(text, question, model=expert, options=OPTIONS) for text in inputs]
    outcomes = [
        o for i in range(0, len(samples), BATCH) for o in engine.run(samples[i : i + BATCH])
    ]
    return torch.tensor([o.answer.probabilities for o in outcomes], dtype=torch.float64)


def judged(engine, expert, inputs, holds_Q, pair):
    said, denied = (
        ask(engine, expert, inputs, Question("predicate", sentence))[:, 0] for sentence in pair
    )
    return Judged(
        float(((said > 0.5) == holds_Q).double().mean()),
        float(((denied > 0.5) != holds_Q).double().mean()),
        float((said + denied - 1).abs().mean()),
    )


@pytest.fixture(params=TASKS)
def asked(request, engine, task_of):
    """A task's inputs, what must be reached, and for each label where it holds."""
    return questions(engine, task_of(request.param), INPUTS)


@pytest.fixture(params=TASKS)
def asked_little(request, engine, task_of):
    """The same of fewer inputs: what must be reached is that of these."""
    return questions(engine, task_of(request.param), FEW_INPUTS)


def questions(engine, task, count):
    name, examples = task.name, task.test[:count]
    inputs, options = [e.input for e in examples], examples[0].options
    answer_Q = torch.tensor([e.answer for e in examples])
    choices = Question("choice", choices=tuple(Choice(o) for o in options))
    chosen_Q = ask(engine, name, inputs, choices).argmax(dim=1)
    needed = float((chosen_Q == answer_Q).double().mean()) - WORSE_AT_MOST
    return name, inputs, needed, {o: answer_Q == i for i, o in enumerate(options)}


def test_a_statement_per_label_and_its_denial(engine, asked):
    name, inputs, needed, holds = asked
    told: list[str] = []
    for label in engine.library.get(name).manifest.labels:
        pair = (label.statement_unseen, label.negation_unseen)
        found = judged(engine, name, inputs, holds[label.value], pair)
        if not found.holds(needed):
            told.append(f"{label.value}: {found}")
    assert not told, f"at least {needed:.3f} is needed: {'; '.join(told)}"


def test_most_of_what_a_stranger_says(engine, asked_little):
    name, inputs, needed, holds = asked_little
    found = {
        pair[0]: judged(engine, name, inputs, holds[label], pair)
        for label, pairs in BLIND[name].items()
        for pair in pairs
    }
    failed = {said: j for said, j in found.items() if not j.holds(needed)}
    assert len(failed) <= FAIL_AT_MOST * len(found), failed


def test_boolean_choices_ask_the_same(engine, asked):
    name, inputs, _, _ = asked
    statement = engine.library.get(name).manifest.labels[0].statement_unseen
    said = ask(engine, name, inputs[:20], Question("predicate", statement))[:, 0]
    boolean = Question("choice", statement, (Choice(True), Choice(False)))
    both_Q2 = ask(engine, name, inputs[:20], boolean)
    torch.testing.assert_close(both_Q2[:, 0], said, rtol=0, atol=1e-5)
    torch.testing.assert_close(both_Q2.sum(dim=1), torch.ones_like(said))
