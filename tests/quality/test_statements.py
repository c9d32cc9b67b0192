"""Statements nobody trained on are judged about as well as the task's own choices are picked."""

import pytest
import torch

from server.engine.messages import Choice, Question, RoutingOptions, Sample

pytestmark = pytest.mark.slow

INPUTS = 150
BATCH = 64
WORSE_AT_MOST = 0.03
OPTIONS = RoutingOptions(truncate=True, trace="none")


def ask(engine, expert, inputs, question):
    """Probabilities (inputs, options) of one question about every input."""
    samples = [Sample(text, question, model=expert, options=OPTIONS) for text in inputs]
    outcomes = [
        o for i in range(0, len(samples), BATCH) for o in engine.run(samples[i : i + BATCH])
    ]
    return torch.tensor([o.answer.probabilities for o in outcomes], dtype=torch.float64)


@pytest.mark.parametrize("name", ["sst2", "subj", "clickbait", "trec"])
def test_unseen_statements_and_their_denials(engine, task_of, name):
    examples = task_of(name).test[:INPUTS]
    inputs, options = [e.input for e in examples], examples[0].options
    answer_Q = torch.tensor([e.answer for e in examples])
    labels = {label.value: label for label in engine.library.get(name).manifest.labels}

    choices = Question("choice", choices=tuple(Choice(o) for o in options))
    chosen_Q = ask(engine, name, inputs, choices).argmax(dim=1)
    needed = float((chosen_Q == answer_Q).double().mean()) - WORSE_AT_MOST

    told: list[str] = []
    for position, option in enumerate(options):
        label, holds_Q = labels[option], answer_Q == position
        said, denied = (
            ask(engine, name, inputs, Question("predicate", sentence))[:, 0]
            for sentence in (label.statement_unseen, label.negation_unseen)
        )
        boolean = Question("choice", label.statement_unseen, (Choice(True), Choice(False)))
        both_Q2 = ask(engine, name, inputs, boolean)
        torch.testing.assert_close(both_Q2[:, 0], said, rtol=0, atol=1e-5)
        torch.testing.assert_close(both_Q2.sum(dim=1), torch.ones_like(said))

        right = float(((said > 0.5) == holds_Q).double().mean())
        denies = float(((denied > 0.5) != holds_Q).double().mean())
        gap = float((said + denied - 1).abs().mean())
        if min(right, denies) < needed or gap > 0.15:
            told.append(f"{option}: said {right:.3f}, denied {denies:.3f}, gap {gap:.3f}")
    assert not told, f"at least {needed:.3f} is needed: {'; '.join(told)}"
