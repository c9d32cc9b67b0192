"""Step 9: from an adapted state to an answer.

A choice is `softmax(cos(state, choice) / tau)` with choices embedded by the bare backbone. A
predicate is a statement about the input: it is placed on the label sets of the experts that were
selected, and p(true) follows from the probabilities of their labels. A question that cannot be
answered so is refused with the reason, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.library import Entry
from experts.manifest import Label
from experts.statements import StatementMap, truth_table
from server.engine.features import FeatureStore
from server.engine.messages import Answer, Choice, Question
from server.engine.work import Work

TAU = 0.05  # the temperature experts are trained with


def texts_needed(work: Work, entries: Mapping[str, Entry]) -> list[str]:
    """The texts whose embeddings this sample's answer needs."""
    question = work.sample.question
    if question is None or not work.sample.predict:
        return []
    if judges_statement(question):
        labels = [lb for e in _with_statements(work, entries) for lb in entries[e].manifest.labels]
        return [question.instructions, *(w.text for lb in labels for w in lb.known)]
    return [c.text for c in offered(work, entries)]


def answer(
    work: Work, entries: Mapping[str, Entry], features: FeatureStore, placing: StatementMap
) -> Answer:
    """Answer one sample from its adapted state."""
    assert work.state_D is not None
    question = work.sample.question
    if question is None:
        return Answer(embedding=tuple(work.state_D.tolist()))
    if judges_statement(question):
        return _judge(work, question, entries, features, placing)
    choices = offered(work, entries)
    if not choices:
        return Answer(refusal="The question has no choices and no selected expert has labels.")
    choice_CD = features.stack([c.text for c in choices])
    probability_C = choose(work.state_D, choice_CD)
    return Answer(tuple(probability_C.tolist()), choices)


def choose(state_D: Tensor, choice_CD: Tensor) -> Tensor:
    """Probabilities (C,) of choices, in float64 so that they sum to 1."""
    return torch.softmax((choice_CD @ state_D).double() / TAU, dim=0)


def judges_statement(question: Question) -> bool:
    """Whether the question asks if a statement is true: a predicate, or boolean choices."""
    boolean = bool(question.choices) and all(isinstance(c.value, bool) for c in question.choices)
    return question.type == "predicate" or (question.type == "choice" and boolean)


def offered(work: Work, entries: Mapping[str, Entry]) -> tuple[Choice, ...]:
    """The question's choices, or the best selected expert's own label set."""
    question = work.sample.question
    if question is None or question.choices:
        return question.choices if question else ()
    for expert in work.selection.ids:
        if labels := entries[expert].manifest.labels:
            return tuple(Choice(label.value) for label in labels)
    return ()


def _judge(
    work: Work, question: Question, entries: Mapping[str, Entry], features: FeatureStore,
    placing: StatementMap,
) -> Answer:  # fmt: skip
    """p(true) of the question's instructions, mixed over the selected experts by their weights."""
    assert work.state_D is not None
    if not question.instructions:
        return Answer(refusal="A predicate needs a statement in its instructions.")
    weight = {e.id: e.weight for e in work.selection.experts}
    judges = [e for e in _with_statements(work, entries) if weight[e]]
    if not judges:
        return Answer(refusal="No selected expert has a label set to judge a statement by.")
    total = sum(weight[e] for e in judges)
    statement_D = features.get(question.instructions)
    true = 0.0
    for expert in judges:
        labels = entries[expert].manifest.labels
        vectors_SD = entries[expert].artefacts.statements
        assert vectors_SD is not None
        probability_L = choose(work.state_D, _prototypes(labels, features))
        holds_1L = placing.place(statement_D[None], vectors_SD, truth_table(labels))
        true += weight[expert] / total * float(holds_1L[0].double() @ probability_L)
    if question.type == "predicate":
        return Answer((true,))
    return Answer(tuple(true if c.value else 1 - true for c in question.choices), question.choices)


def _prototypes(labels: Sequence[Label], features: FeatureStore) -> Tensor:
    """Each label as the mean of its known wordings: (L, D)."""
    means = [features.stack([w.text for w in label.known]).mean(dim=0) for label in labels]
    return F.normalize(torch.stack(means), dim=-1)


def _with_statements(work: Work, entries: Mapping[str, Entry]) -> list[str]:
    """Selected experts that can judge a statement."""
    return [id for id in work.selection.ids if _judges(entries[id])]


def _judges(entry: Entry) -> bool:
    """Whether its statements are those of its labels: labels may be given anew when it is added."""
    vectors_SD, labels = entry.artefacts.statements, entry.manifest.labels
    said = sum(len(label.statements) + len(label.negations) for label in labels)
    return vectors_SD is not None and 0 < said == len(vectors_SD)
