"""What an expert is trained on: the corpora of its tasks, made ready for one backbone.

Knows nothing of the optimiser, nor of what is trained: an expert, or its gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from experts.backbones.text_encoder import TextEncoder
from experts.manifest import TaskCard
from experts.mix import Mix
from experts.training.data import Example
from experts.training.objective import ChoiceObjective
from experts.training.recipe import Recipe
from experts.training.schedule import Batch, schedule


@dataclass(frozen=True, eq=False)
class Corpus:
    """One task to learn from.

    Attributes:
        examples: its questions. card: how its labels are said. foreign: label texts of other tasks,
            offered as wrong choices.
    """

    examples: Sequence[Example]
    card: TaskCard
    foreign: Sequence[str] = ()


class Course:
    """Corpora with their tokens and objectives: each has an objective of its own."""

    def __init__(self, backbone: TextEncoder, corpora: Sequence[Corpus], recipe: Recipe) -> None:
        self._backbone = backbone
        self._recipe = recipe
        self._examples = [corpus.examples for corpus in corpora]
        self._objectives = [
            ChoiceObjective(c.examples, c.card, c.foreign, backbone.embed, recipe) for c in corpora
        ]
        self._tokens = [
            [row[: recipe.max_tokens] for row in backbone.tokenize(inputs, truncate=True)]
            for inputs in ([e.input for e in corpus.examples] for corpus in corpora)
        ]

    def steps(self) -> list[Batch]:
        """What each step of the whole training takes, in order."""
        return schedule([[len(row) for row in rows] for rows in self._tokens], self._recipe)

    def loss(self, batch: Batch, mix_of: Callable[[int], Mix]) -> Tensor:
        """Mean loss of a batch.

        Args:
            mix_of: what is in force in the forward pass, for so many rows.
        """
        tokens, examples = self._tokens[batch.corpus], self._examples[batch.corpus]
        rows = [tokens[i] for i in batch.rows]
        state_BD = self._backbone.run(rows, mix_of(len(rows)))
        return self._objectives[batch.corpus].loss(state_BD, [examples[i] for i in batch.rows])
