"""Statements about an input, placed on an expert's label set.

A predicate asks whether a sentence is true. Its truth depends on the labels it speaks of, so it is
compared with the expert's own statements, each of which asserts or denies one label. What a frozen
encoder says a sentence means hardly tells it from its denial; its states half-way up, which still
hold the words, do. A small linear map, fitted once per library (`routers.fitting.statements`),
reads both. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.backbones import Backbone
from experts.manifest import Label

UNFITTED_SCALE = 30.0


def read_statements(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """What the map reads of each sentence: (S, 2D), its embedding beside its half-way features."""
    return torch.cat([backbone.embed(texts), backbone.halfway(backbone.features(texts))], dim=1)


@dataclass(frozen=True, eq=False)
class StatementMap:
    """A (2D, D) map and (D,) shift of what is read of sentences, and how sharply they compare."""

    map_FD: Tensor
    shift_D: Tensor
    scale: float

    @classmethod
    def identity(cls, width: int) -> StatementMap:
        """Plain cosines of the embeddings: what a library that was never calibrated uses."""
        return cls(torch.eye(2 * width, width), torch.zeros(width), UNFITTED_SCALE)

    def place(self, statement_QF: Tensor, known_SF: Tensor, truth_SL: Tensor) -> Tensor:
        """For which labels each statement holds: (Q, L), in [0, 1].

        Args:
            statement_QF: statements, as `read_statements` gives them. known_SF: the expert's own.
            truth_SL: for which labels those hold (`truth_table`).
        """
        match_QS = self._turn(statement_QF) @ self._turn(known_SF).T
        return torch.softmax(match_QS * self.scale, dim=1) @ truth_SL

    def _turn(self, read_SF: Tensor) -> Tensor:
        return F.normalize(read_SF @ self.map_FD + self.shift_D, dim=-1)


def sentences(labels: Iterable[Label]) -> list[str]:
    """The labels' statements and negations (S), label by label."""
    return [s for label in labels for s in (*label.statements, *label.negations)]


def truth_table(labels: Sequence[Label]) -> Tensor:
    """For which labels each of `sentences(labels)` holds: (S, L).

    An assertion holds for its own label alone, a denial for all others.
    """
    own_LL = torch.eye(len(labels))
    rows: list[Tensor] = []
    for i, label in enumerate(labels):
        rows += [own_LL[i]] * len(label.statements) + [1 - own_LL[i]] * len(label.negations)
    return torch.stack(rows)
