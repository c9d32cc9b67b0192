"""The training objective: pick the right choice among randomly worded ones.

Labels are said in many ways, so every step draws for each example a wording of every label, a
subset of the labels, and a few labels of other tasks as wrong choices. The choice side is the bare
backbone, so all wordings are embedded once. Knows nothing of the optimiser.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.manifest import TaskCard
from experts.training.data import Example
from experts.training.recipe import Recipe

Embed = Callable[[Sequence[str]], Tensor]
SUBSET_DROP = 0.7  # each step hides up to this share of the wrong labels
FOREIGN_SHOWN = 0.4


class ChoiceObjective:
    """Cross-entropy over `cos(state, choice) / tau`.

    A label's forms are the texts that may name it: its known wordings, and its statements. Where
    every question brings its own choices, a choice has one form: itself.
    """

    def __init__(
        self, examples: Sequence[Example], card: TaskCard, foreign: Sequence[str],
        embed: Embed, recipe: Recipe,
    ) -> None:  # fmt: skip
        self._texts: dict[str, int] = {}
        by_label = {label.value: label for label in card.labels}
        self._wordings: dict[str, list[int]] = {}
        self._statements: dict[str, list[int]] = {}
        for option in dict.fromkeys(o for e in examples for o in e.options):
            label = by_label.get(option)
            wordings = [w.text for w in label.known] if label else [option]
            self._wordings[option] = [self._index(t) for t in wordings]
            self._statements[option] = [self._index(t) for t in label.statements] if label else []
        # What another task calls a label may be right here too: that is no wrong choice.
        others = [text for text in foreign if text not in self._texts]
        self._foreign = [self._index(text) for text in others]
        # A task that stands alone has no other's labels to be offered.
        self.recipe = recipe if others else recipe.model_copy(update={"foreign": 0})
        self._table_WD = embed(list(self._texts)).cpu()
        self._random = random.Random(recipe.seed)
        self._generator = torch.Generator().manual_seed(recipe.seed)

    def loss(self, state_BD: Tensor, examples: Sequence[Example]) -> Tensor:
        """Mean cross-entropy of a batch; `state_BD` are the adapted, normalised states.

        What is drawn is drawn on the CPU, so that it is the same wherever the backbone is.
        """
        choice_BCD = self._draw(examples)
        logit_BC = torch.einsum("bd,bcd->bc", state_BD.cpu(), choice_BCD) / self.recipe.tau
        logit_BC = logit_BC.masked_fill(self._hidden(examples, logit_BC.shape), -torch.inf)
        return F.cross_entropy(logit_BC, torch.tensor([e.answer for e in examples]))

    def _draw(self, examples: Sequence[Example]) -> Tensor:
        """Blends of two forms of every option, with noise: (B, C + foreign, D)."""
        width = max(len(e.options) for e in examples)
        first = self._table_WD[torch.tensor([self._row(e, width) for e in examples])]
        second = self._table_WD[torch.tensor([self._row(e, width) for e in examples])]
        blend = torch.rand(first.shape[:2], generator=self._generator).unsqueeze(-1)
        drawn_BCD = torch.where(
            torch.arange(first.shape[1])[None, :, None] < width,
            blend * first + (1 - blend) * second,
            first,  # two foreign labels have nothing in common to blend
        )
        noise = torch.randn(drawn_BCD.shape, generator=self._generator)
        scale = self.recipe.noise / drawn_BCD.shape[-1] ** 0.5
        return F.normalize(drawn_BCD + noise * scale, dim=-1)

    def _row(self, example: Example, width: int) -> list[int]:
        """One form of each option, padding, and the foreign labels."""
        forms = [self._form(option) for option in example.options]
        padding = [0] * (width - len(forms))
        return [*forms, *padding, *self._random.choices(self._foreign, k=self.recipe.foreign)]

    def _form(self, option: str) -> int:
        statements = self._statements[option]
        if statements and self._random.random() < self.recipe.statement_share:
            return self._random.choice(statements)
        return self._random.choice(self._wordings[option])

    def _hidden(self, examples: Sequence[Example], shape: torch.Size) -> Tensor:
        """Which choices a step leaves out: never the answer."""
        B, C = shape
        foreign = self.recipe.foreign
        drawn_BC = torch.rand(B, C, generator=self._generator)
        share_B1 = SUBSET_DROP * torch.rand(B, 1, generator=self._generator)
        hidden_BC = drawn_BC < share_B1
        hidden_BC[:, C - foreign :] = drawn_BC[:, C - foreign :] > FOREIGN_SHOWN
        for b, example in enumerate(examples):
            options = len(example.options)
            hidden_BC[b, options : C - foreign] = True
            if options == 2:  # hiding the only wrong label would teach nothing
                hidden_BC[b, :2] = False
            hidden_BC[b, example.answer] = False
        return hidden_BC

    def _index(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))
