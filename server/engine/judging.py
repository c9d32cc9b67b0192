"""Step 9 for statements: p(true) of a sentence about the input.

A statement is placed on the label sets of the experts that were selected, and its probability
follows from those of their labels. Knows nothing of who was selected or why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.library import Entry
from experts.manifest import Label
from experts.statements import StatementMap, sentences, truth_table
from server.engine.features import FeatureStore
from server.engine.messages import Answer, Question
from server.engine.work import Work

TAU = 0.05  # the temperature experts are trained with


def choose(state_D: Tensor, choice_CD: Tensor) -> Tensor:
    """Probabilities (C,) of choices, in float64 so that they sum to 1."""
    return torch.softmax((choice_CD @ state_D).double() / TAU, dim=0)


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges statements for one batch.

    Attributes:
        words: embeddings of label wordings. said: sentences, as `read_statements` gives them.
        placing: the library's statement map.
    """

    words: FeatureStore
    said: FeatureStore
    placing: StatementMap

    def warm(self, board: Sequence[Work], entries: Mapping[str, Entry]) -> None:
        """Compute what judging needs, in as few passes as possible."""
        labels = [
            lb for w in board for e in _judges(w, entries) for lb in entries[e].manifest.labels
        ]
        asked = [w.sample.question.instructions for w in board if w.sample.question]
        self.words.warm(w.text for label in labels for w in label.known)
        self.said.warm([*asked, *sentences(labels)])

    def judge(self, work: Work, question: Question, entries: Mapping[str, Entry]) -> Answer:
        """p(true) of the question's instructions, mixed over the judges by their weights."""
        if not question.instructions:
            return Answer(refusal="A predicate needs a statement in its instructions.")
        judges = _judges(work, entries)
        if not judges:
            return Answer(refusal="No selected expert has a label set to judge a statement by.")
        true = sum(
            weight / sum(judges.values()) * self._holds(work, question, entries[id].manifest.labels)
            for id, weight in judges.items()
        )
        if question.type == "predicate":
            return Answer((true,))
        return Answer(
            tuple(true if c.value else 1 - true for c in question.choices), question.choices
        )

    def _holds(self, work: Work, question: Question, labels: Sequence[Label]) -> float:
        """p(true) by one expert's label set."""
        assert work.state_D is not None
        probability_L = choose(work.state_D, self._prototypes(labels))
        holds_1L = self.placing.place(
            self.said.stack([question.instructions]),
            self.said.stack(sentences(labels)),
            truth_table(labels),
        )
        return float(holds_1L[0].double() @ probability_L)

    def _prototypes(self, labels: Sequence[Label]) -> Tensor:
        """Each label as the mean of its known wordings: (L, D)."""
        means = [self.words.stack([w.text for w in label.known]).mean(dim=0) for label in labels]
        return F.normalize(torch.stack(means), dim=-1)


def _judges(work: Work, entries: Mapping[str, Entry]) -> dict[str, float]:
    """Selected experts that can judge a statement, with their weights."""
    return {
        expert.id: expert.weight
        for expert in work.selection.experts
        if expert.weight and sentences(entries[expert.id].manifest.labels)
    }
