"""What an expert is trained on: the corpora of its tasks, made ready for one backbone.

An encoder learns to tell the right choice from others, a language model to write it. Knows nothing
of the optimiser, nor of what is trained: an expert, or its gates.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from experts.backbones import Backbone, LanguageModel
from experts.decoding.likelihood import Ranked
from experts.manifest import TaskCard
from experts.mix import Mix
from experts.training.data import Example, TaskFormatError
from experts.training.objective import ChoiceObjective, Embed
from experts.training.recipe import Recipe
from experts.training.schedule import Batch, Step, remembering, schedule


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

    def remembered(self, share: float, seed: int) -> Corpus:
        """A share of it, at least one example, drawn evenly: what experience replay keeps."""
        count = max(1, round(share * len(self.examples)))
        drawn = random.Random(seed).sample(range(len(self.examples)), count)
        return replace(self, examples=[self.examples[i] for i in sorted(drawn)])


def course_of(
    backbone: Backbone, corpora: Sequence[Corpus], recipe: Recipe, memory: Sequence[Corpus] = ()
) -> Course:
    """The course of a backbone's family; see `Course`.

    Raises:
        TaskFormatError: a task's answers are to be written, and the backbone cannot write.
    """
    if isinstance(backbone, LanguageModel):
        return WritingCourse(backbone, corpora, recipe, memory)
    for corpus in (*corpora, *memory):
        if corpus.examples and all(example.is_written for example in corpus.examples):
            raise TaskFormatError(
                f"{corpus.card.id}: answers are to be written, and backbone {backbone.id!r} writes "
                "no text: name a causal or seq2seq one, or give options to choose from."
            )
    return Course(backbone, corpora, recipe, memory)


class Course:
    """Corpora with their tokens and objectives: each has an objective of its own.

    Args:
        memory: what is kept of former tasks; every step takes some of it too.
    """

    def __init__(
        self, backbone: Backbone, corpora: Sequence[Corpus], recipe: Recipe,
        memory: Sequence[Corpus] = (),
    ) -> None:  # fmt: skip
        self._backbone, self._recipe, self._learnt = backbone, recipe, len(corpora)
        every, embed = (*corpora, *memory), _Known(backbone.embed)
        self._examples = [corpus.examples for corpus in every]
        self._objectives = [
            ChoiceObjective(c.examples, c.card, c.foreign, embed, recipe) for c in every
        ]
        self._tokens = [
            [row[: recipe.max_tokens] for row in backbone.tokenize(inputs, truncate=True)]
            for inputs in ([e.input for e in corpus.examples] for corpus in every)
        ]

    def steps(self) -> list[Step]:
        """What each step of the whole training takes, in order."""
        learnt, memory = self._tokens[: self._learnt], self._tokens[self._learnt :]
        made = schedule([[len(row) for row in rows] for rows in learnt], self._recipe)
        return remembering(made, [len(rows) for rows in memory], self._learnt, self._recipe)

    def loss(self, step: Step, mix_of: Callable[[int], Mix]) -> Tensor:
        """Mean loss of a step's examples, in one forward pass.

        Args:
            mix_of: what is in force in the forward pass, for so many rows.
        """
        rows = [self._tokens[batch.corpus][i] for batch in step for i in batch.rows]
        state_BD = self._backbone.run(rows, mix_of(len(rows)))
        parts = state_BD.split([len(batch.rows) for batch in step])
        losses = [
            self._loss(batch, state) * (len(batch.rows) / len(rows))
            for batch, state in zip(step, parts, strict=True)
        ]
        return sum(losses[1:], start=losses[0])

    def _loss(self, batch: Batch, state_BD: Tensor) -> Tensor:
        examples = [self._examples[batch.corpus][i] for i in batch.rows]
        return self._objectives[batch.corpus].loss(state_BD, examples)


class WritingCourse(Course):
    """The same for a language model: what is learnt is to write the answer after the input.

    The loss is the mean over examples of the answer's cross-entropy a token, its end included.
    """

    def __init__(
        self, backbone: LanguageModel, corpora: Sequence[Corpus], recipe: Recipe,
        memory: Sequence[Corpus] = (),
    ) -> None:  # fmt: skip
        self._model, self._recipe, self._learnt = backbone, recipe, len(corpora)
        self._answered = [[self._ready(e) for e in c.examples] for c in (*corpora, *memory)]
        self._tokens = [[list(one.text) for one in corpus] for corpus in self._answered]

    def loss(self, step: Step, mix_of: Callable[[int], Mix]) -> Tensor:
        """See `Course.loss`."""
        asked = [self._answered[batch.corpus][i] for batch in step for i in batch.rows]
        return -torch.cat(self._model.rank_at_once(asked, mix_of(len(asked)))).mean()

    def _ready(self, example: Example) -> Ranked:
        text, answer = self._model.choice_tokens(example.input, example.right)
        end = next(iter(self._model.eos), None)
        closed = answer if end is None or answer[-1:] == [end] else [*answer, end]
        limit = self._recipe.max_tokens
        return Ranked(text[-limit:], [closed[:limit]])


class _Known:
    """Embeds each text once: corpora have most of their words in common."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._vectors: dict[str, Tensor] = {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing:
            self._vectors |= zip(missing, self._embed(missing), strict=True)
        return torch.stack([self._vectors[text] for text in texts])
