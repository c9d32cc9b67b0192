"""How inputs vary within the tasks of a library: its metric, and the same with a task left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from routers.metric import Metric, covariance


@dataclass(frozen=True, eq=False)
class Variation:
    """Means (F,) and covariances (F, F) of un-adapted features by task, in float64."""

    means: Mapping[str, Tensor]
    covariances: Mapping[str, Tensor]

    @classmethod
    def of(cls, features: Mapping[str, Tensor]) -> Variation:
        """The variation of each task's features (M, F)."""
        return cls(
            {id: f.double().mean(dim=0) for id, f in features.items()},
            {id: covariance(f.double()) for id, f in features.items()},
        )

    def metric(self, without: str | None = None) -> Metric:
        """The metric of all tasks, or of all but one where there are others.

        Every task counts the same.
        """
        kept = [id for id in self.means if id != without] or list(self.means)
        means_EF = torch.stack([self.means[id] for id in kept])
        total_FF = torch.stack([self.covariances[id] for id in kept]).mean(dim=0)
        return Metric.of(means_EF, total_FF)
