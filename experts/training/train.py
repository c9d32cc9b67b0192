"""The training loop of one expert: its tensors in a mix of one, and nothing else moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from experts.backbones import Backbone
from experts.errors import MismatchedExpert
from experts.kinds import KINDS
from experts.training.course import Corpus, course_of
from experts.training.ewc import penalty
from experts.training.leaves import Leaves
from experts.training.past import AFRESH, Past
from experts.training.recipe import Recipe
from experts.training.schedule import Progress, Step
from experts.weights import ExpertWeights, SiteTensors

S = TypeVar("S")


def train_expert(
    id: str,
    backbone: Backbone,
    corpora: Sequence[Corpus],
    recipe: Recipe,
    progress: Progress | None = None,
    past: Past = AFRESH,
) -> ExpertWeights:
    """Train one expert of `recipe.kind`; the backbone stays frozen.

    Args:
        corpora: its task's; or those of several tasks, which take as many steps together as each
            would take alone. past: see `Past`; its tensors stay as they are.

    Raises:
        MismatchedExpert: the expert it should start from is of another kind, or of other shapes.
    """
    leaves = Leaves(_initial(id, backbone, recipe, past.start))
    course = course_of(backbone, corpora, recipe, past.memory)

    def loss_of(step: Step) -> Tensor:
        loss = course.loss(step, leaves.mix)
        if not past.anchors:
            return loss
        return loss + penalty(leaves.expert.sites, past.anchors, past.strength)

    minimise(loss_of, leaves.tensors, course.steps(), recipe, progress)
    return leaves.trained()


def _initial(
    id: str, backbone: Backbone, recipe: Recipe, start: ExpertWeights | None
) -> ExpertWeights:
    """An expert before its training: fresh tensors, or those of `start`."""
    kind = KINDS[recipe.kind]
    generator = torch.Generator().manual_seed(recipe.seed)
    targets = kind.target_sites(backbone.sites.values())
    fresh = kind.initial(targets, rank=recipe.rank, generator=generator)
    if start is None:
        return ExpertWeights(id, kind.name, kind.group(fresh), fresh)
    if start.kind != kind.name or _shapes(start.sites) != _shapes(fresh):
        raise MismatchedExpert(
            f"A {kind.name} expert of rank {recipe.rank} cannot start from {start.id!r}, which is "
            f"of kind {start.kind} with other sites or ranks: train it as that one was, or afresh."
        )
    return ExpertWeights(id, kind.name, start.group, start.sites)


def _shapes(sites: Mapping[str, SiteTensors]) -> dict[tuple[str, str], torch.Size]:
    return {(site, part): t.shape for site, parts in sites.items() for part, t in parts.items()}


def minimise(
    loss_of: Callable[[S], Tensor],
    leaves: Sequence[Tensor],
    steps: Sequence[S],
    recipe: Recipe,
    progress: Progress | None = None,
) -> None:
    """AdamW with warm-up and linear decay over the steps, gradients clipped at norm 1."""
    total = len(steps)
    optimiser = torch.optim.AdamW(leaves, lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min(1.0, (s + 1) / (recipe.warmup * total)) * max(0.02, 1 - s / total)
    )
    for done, step in enumerate(steps, 1):
        loss = loss_of(step)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimiser.step()
        schedule.step()
        if progress:
            progress(done, total, float(loss.detach()))
