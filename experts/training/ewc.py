"""Elastic weight consolidation: what mattered to former tasks is held where it was.

Kirkpatrick et al. 2017, equation 3: the loss gains `lambda / 2 * sum_i F_i (theta_i - theta*_i)^2`,
with the diagonal Fisher information F of a former task at the tensors theta* that it ended with.
Several former tasks add up, a penalty each. F is the empirical one: squared gradients of the loss
at the examples' own labels, one example at a time.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experts.backbones import Backbone
from experts.training.course import Corpus, course_of
from experts.training.leaves import Leaves
from experts.training.recipe import Recipe
from experts.training.schedule import Batch, Progress
from experts.weights import ExpertWeights, SiteTensors


@dataclass(frozen=True, eq=False)
class Anchor:
    """A former task: the tensors it ended with, and how much each number mattered to it."""

    sites: Mapping[str, SiteTensors]
    fisher: Mapping[str, SiteTensors]


def penalty(sites: Mapping[str, SiteTensors], anchors: Sequence[Anchor], strength: float) -> Tensor:
    """`strength / 2` times the distance of the tensors from every anchor, weighed by its Fisher."""
    terms = [
        (fisher * (sites[site][part] - anchor.sites[site][part]).square()).sum()
        for anchor in anchors
        for site, parts in anchor.fisher.items()
        for part, fisher in parts.items()
    ]
    return strength / 2 * torch.stack(terms).sum()


def fisher_of(
    backbone: Backbone, expert: ExpertWeights, corpus: Corpus, recipe: Recipe, count: int,
    progress: Progress | None = None,
) -> dict[str, dict[str, Tensor]]:  # fmt: skip
    """The diagonal Fisher information of an expert's tensors on its task.

    Args:
        count: estimated from so many examples, drawn evenly.
    """
    leaves = Leaves(expert)
    course = course_of(backbone, [corpus], recipe)
    total = min(count, len(corpus.examples))
    drawn = random.Random(recipe.seed).sample(range(len(corpus.examples)), total)
    sums = [torch.zeros_like(t) for t in leaves.tensors]
    for done, row in enumerate(drawn, 1):
        loss = course.loss((Batch(0, [row]),), leaves.mix)
        for held, gradient in zip(sums, torch.autograd.grad(loss, leaves.tensors), strict=True):
            held += gradient.square() / total
        if progress:
            progress(done, total, float(loss.detach()))
    return leaves.shaped(sums)
