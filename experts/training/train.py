"""The training loop of one expert: leaf tensors in a mix of one, and nothing else moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from experts.backbones.text_encoder import TextEncoder
from experts.kinds import KINDS
from experts.mix import Mix, RowMix, build_mix
from experts.stacks import stack_experts
from experts.training.course import Corpus, Course
from experts.training.recipe import Recipe
from experts.training.schedule import Batch
from experts.weights import ExpertWeights

Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss)."""

Step = TypeVar("Step")


def train_expert(
    id: str,
    backbone: TextEncoder,
    corpora: Sequence[Corpus],
    recipe: Recipe,
    progress: Progress | None = None,
) -> ExpertWeights:
    """Train one expert of `recipe.kind`; the backbone stays frozen.

    Args:
        corpora: its task's; or those of several tasks, which take as many steps together as each
            would take alone.
    """
    kind = KINDS[recipe.kind]
    generator = torch.Generator().manual_seed(recipe.seed)
    targets = kind.target_sites(backbone.sites.values())
    sites = kind.initial(targets, rank=recipe.rank, generator=generator)
    leaves = [t.requires_grad_() for tensors in sites.values() for t in tensors.values()]
    expert = ExpertWeights(id, kind.name, kind.group(sites), sites)
    course = Course(backbone, corpora, recipe)

    def alone(rows: int) -> Mix:
        return build_mix([RowMix.of({id: 1.0})] * rows, [stack_experts([expert])])

    def loss_of(batch: Batch) -> Tensor:
        return course.loss(batch, alone)

    minimise(loss_of, leaves, course.steps(), recipe, progress)
    trained = {
        site: {part: t.detach() for part, t in tensors.items()} for site, tensors in sites.items()
    }
    return ExpertWeights(id, kind.name, kind.group(trained), trained)


def minimise(
    loss_of: Callable[[Step], Tensor],
    leaves: Sequence[Tensor],
    steps: Sequence[Step],
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
