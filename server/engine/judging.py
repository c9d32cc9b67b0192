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
from routers.calibration import TEMPERATURE
from server.engine.features import FeatureStore
from server.engine.messages import Answer, Question
from server.engine.work import Work


def choose(state_D: Tensor, choice_CD: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Probabilities (C,) of choices, in float64 so that they sum to 1."""
    return torch.softmax((choice_CD @ state_D).double() / temperature, dim=0)


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
        asked = [s for w in board if w.sample.question for s in said_by(w.sample.question) if s]
        self.words.warm(w.text for label in labels for w in label.known)
        self.said.warm([*asked, *sentences(labels)])

    def judge(self, work: Work, question: Question, entries: Mapping[str, Entry]) -> Answer:
        """p(true) of what is said, mixed over the judges by their weights."""
        said, denied = said_by(question)
        if not said:
            return Answer(refusal="There is no statement to judge: put it into the instructions.")
        judges = _judges(work, entries)
        if not judges:
            return Answer(refusal="No selected expert has statements to compare this one with.")
        true = self._share(work, said, judges, entries)
        if denied:  # both options are statements of their own: what they claim is shared out
            false = self._share(work, denied, judges, entries)
            true = true / (true + false) if true + false else 0.5
        if question.type == "predicate":
            return Answer((true,))
        return Answer(
            tuple(true if c.value else 1 - true for c in question.choices), question.choices
        )

    def _share(
        self, work: Work, said: str, judges: Mapping[str, float], entries: Mapping[str, Entry]
    ) -> float:
        """p(true) of one statement."""
        total = sum(judges.values())
        return sum(
            weight / total * self._holds(work, said, entries[ref].manifest.labels)
            for ref, weight in judges.items()
        )

    def _holds(self, work: Work, said: str, labels: Sequence[Label]) -> float:
        """p(true) of a statement by one expert's label set."""
        assert work.state_D is not None
        probability_L = choose(work.state_D, self._prototypes(labels))
        holds_1L = self.placing.place(
            self.said.stack([said]), self.said.stack(sentences(labels)), truth_table(labels)
        )
        return float(holds_1L[0].double() @ probability_L)

    def _prototypes(self, labels: Sequence[Label]) -> Tensor:
        """Each label as the mean of its known wordings: (L, D)."""
        means = [self.words.stack([w.text for w in label.known]).mean(dim=0) for label in labels]
        return F.normalize(torch.stack(means), dim=-1)


def said_by(question: Question) -> tuple[str, str]:
    """What is claimed, and what is claimed against it ("" when that is only its denial).

    A description of a boolean option says what that option means; without one, `true` means what
    the instructions say.
    """
    meant = {choice.value: choice.description or "" for choice in question.choices}
    return meant.get(True) or question.instructions, meant.get(False, "")


def _judges(work: Work, entries: Mapping[str, Entry]) -> dict[str, float]:
    """References of selected experts that can judge a statement, with their weights."""
    return {
        expert.ref: expert.weight
        for expert in work.selection.experts
        if expert.weight and sentences(entries[expert.ref].manifest.labels)
    }
