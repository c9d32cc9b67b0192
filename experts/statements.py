"""Statements about an input, placed on an expert's label set.

A predicate asks whether a sentence is true. Its truth depends on the labels it speaks of, so it is
compared with the expert's own statements, each of which asserts or denies one label. Frozen
sentence embeddings hardly tell a sentence from its denial; a small linear map, fitted once per
library (`routers.fitting.statements`), turns them so that it does. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experts.manifest import Label

UNFITTED_SCALE = 30.0


@dataclass(frozen=True, eq=False)
class StatementMap:
    """A (D, D) map of embeddings and the sharpness of their comparison."""

    map_DD: Tensor
    scale: float

    @classmethod
    def identity(cls, width: int) -> StatementMap:
        """Plain cosines: what a library that was never calibrated uses."""
        return cls(torch.eye(width), UNFITTED_SCALE)

    def place(self, statement_QD: Tensor, known_SD: Tensor, truth_SL: Tensor) -> Tensor:
        """For which labels each statement holds: (Q, L), in [0, 1].

        Args:
            statement_QD: embeddings of statements. known_SD: of the expert's own statements.
            truth_SL: for which labels those hold (`truth_table`).
        """
        asked_QD = F.normalize(statement_QD @ self.map_DD, dim=-1)
        own_SD = F.normalize(known_SD @ self.map_DD, dim=-1)
        return torch.softmax(asked_QD @ own_SD.T * self.scale, dim=1) @ truth_SL


def truth_table(labels: Sequence[Label]) -> Tensor:
    """For which labels each statement holds: (S, L), in the order of `Artefacts.statements`.

    An assertion holds for its own label alone, a denial for all others.
    """
    own_LL = torch.eye(len(labels))
    rows: list[Tensor] = []
    for i, label in enumerate(labels):
        rows += [own_LL[i]] * len(label.statements) + [1 - own_LL[i]] * len(label.negations)
    return torch.stack(rows)
