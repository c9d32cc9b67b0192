"""How inputs vary within the tasks of a library: its metric, and the same with tasks left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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

    def metric(self, without: Collection[str] = ()) -> Metric:
        """The metric of all tasks but these, or of all where no other is left.

        Every task counts the same.
        """
        kept = [id for id in self.means if id not in without] or list(self.means)
        means_EF = torch.stack([self.means[id] for id in kept])
        total_FF = torch.stack([self.covariances[id] for id in kept]).mean(dim=0)
        return Metric.of(means_EF, total_FF)

    def nearest(self, id: str) -> str | None:
        """The task whose inputs are most like another's on average; None where there is no other.

        By the metric of the others.
        """
        others = [other for other in self.means if other != id]
        if not others:
            return None
        metric = self.metric(without=(id,))
        away_EF = torch.stack([self.means[other] - self.means[id] for other in others]).float()
        distance_E = (away_EF @ metric.whitening_FF).norm(dim=1)
        return others[int(distance_E.argmin())]
