"""How likely each of several continuations of a text is: all in one pass, the text read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experts.decoding.branches import Tree


@dataclass(frozen=True)
class Ranked:
    """A text, and continuations of at least one token each, as token ids."""

    text: Sequence[int]
    choices: Sequence[Sequence[int]]

    def tree(self, stem: int) -> Tree:
        """Its tree: a branch leaves its last token out, after which nothing is asked."""
        return Tree(stem, tuple(len(choice) - 1 for choice in self.choices))

    def ids(self, stem: Sequence[int]) -> list[int]:
        """The tree's tokens."""
        return [*stem, *(t for choice in self.choices for t in choice[:-1])]

    @property
    def kept(self) -> int:
        """Tokens whose logits are wanted: the stem's last, and all of the branches."""
        return 1 + sum(len(choice) - 1 for choice in self.choices)


def kept_of(ranked: Sequence[Ranked], stems: Sequence[int]) -> list[int]:
    """Where the wanted tokens stand in the flat pass."""
    kept: list[int] = []
    start = 0
    for one, stem in zip(ranked, stems, strict=True):
        kept += range(start + stem - 1, start + stem - 1 + one.kept)
        start += stem - 1 + one.kept
    return kept


def mean_logprobs(ranked: Sequence[Ranked], logit_KV: Tensor) -> list[Tensor]:
    """Each choice's mean logarithmic probability a token: (C,) of each row, in float64.

    Args:
        logit_KV: of the wanted tokens, row after row.
    """
    logprob_KV = torch.log_softmax(logit_KV.double(), dim=-1)
    found: list[Tensor] = []
    start = 0
    for one in ranked:
        at = start + 1
        means: list[Tensor] = []
        for choice in one.choices:
            rows = [start, *range(at, at + len(choice) - 1)]
            at += len(choice) - 1
            means.append(logprob_KV[rows, list(choice)].mean())
        found.append(torch.stack(means))
        start = at
    return found
