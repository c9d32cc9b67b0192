"""What routers know of an expert by the inputs it was trained on: prototypes, mean and spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from experts.artefacts import Artefacts
from experts.backbones import Backbone
from routers.fitting.centroids import prototypes
from routers.metric import Metric

CENTROIDS = 8
SPREADS = 8
"""Directions that an expert brings: half as many do nearly as well, twice as many a bit better."""
LEAST_SPREAD = 1e-3


def with_inputs(
    artefacts: Artefacts, backbone: Backbone, texts: Sequence[str], metric: Metric | None
) -> Artefacts:
    """Artefacts that also tell of these inputs, by the library's metric where it has one."""
    feature_MF = backbone.features(texts)
    return replace(
        artefacts,
        centroids=prototypes(backbone.halfway(feature_MF), CENTROIDS),
        inputs=mean_and_spread(feature_MF, metric),
        seen=len(texts),
    )


def mean_and_spread(feature_MF: Tensor, metric: Metric | None) -> Tensor:
    """The artefact `inputs` of features (M, F): their mean, and at most `SPREADS` directions.

    A direction is there where the features vary beyond the metric, after what few of them vary by
    chance is taken off; it is as long as the deviation that the metric misses. Without a metric
    there are none.
    """
    mean_1F = feature_MF.float().mean(dim=0, keepdim=True)
    if metric is None or len(feature_MF) < 2:
        return mean_1F
    white_MF = metric.whiten(feature_MF)
    count, width = white_MF.shape
    centred_MF = (white_MF - white_MF.mean(dim=0)).double()
    rank = min(SPREADS, count, width)
    _, singular_R, direction_RF = torch.linalg.svd(centred_MF, full_matrices=False)
    variance_R = (singular_R[:rank].square() + width) / (count + width)  # a prior of variance 1
    beyond_R = (variance_R - 1).clamp(min=0)
    kept = beyond_R > LEAST_SPREAD
    white_RF = (beyond_R.sqrt()[:, None] * direction_RF[:rank])[kept]
    spread_RF = torch.linalg.solve_triangular(
        metric.whitening_FF.double(), white_RF, upper=False, left=False
    )
    return torch.cat([mean_1F, spread_RF.float()])
