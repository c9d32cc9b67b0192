"""The training loop of one expert: leaf tensors in a mix of one, and nothing else moves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from experts.backbones.text_encoder import TextEncoder
from experts.kinds import KINDS
from experts.manifest import TaskCard
from experts.mix import RowMix, build_mix
from experts.stacks import stack_experts
from experts.training.data import Example
from experts.training.objective import ChoiceObjective
from experts.training.recipe import Recipe
from experts.weights import ExpertWeights

Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss)."""

SORTED_CHUNK = 8  # batches are cut from chunks of this many, sorted by length: less padding


def train_expert(
    backbone: TextEncoder,
    examples: Sequence[Example],
    card: TaskCard,
    foreign: Sequence[str],
    recipe: Recipe,
    progress: Progress | None = None,
) -> ExpertWeights:
    """Train one expert of `recipe.kind` on `examples`; the backbone stays frozen.

    Args:
        foreign: label texts of other tasks, offered as wrong choices.
    """
    kind = KINDS[recipe.kind]
    generator = torch.Generator().manual_seed(recipe.seed)
    targets = kind.target_sites(backbone.sites.values())
    sites = kind.initial(targets, rank=recipe.rank, generator=generator)
    leaves = [t.requires_grad_() for tensors in sites.values() for t in tensors.values()]
    expert = ExpertWeights(card.id, kind.name, kind.group(sites), sites)
    objective = ChoiceObjective(examples, card, foreign, backbone.embed, recipe)
    tokens = backbone.tokenize([e.input for e in examples], truncate=True)
    tokens = [row[: recipe.max_tokens] for row in tokens]

    def loss_of(batch: Sequence[int]) -> Tensor:
        mix = build_mix([RowMix.of({expert.id: 1.0})] * len(batch), [stack_experts([expert])])
        state_BD = backbone.run([tokens[i] for i in batch], mix)
        return objective.loss(state_BD, [examples[i] for i in batch])

    minimise(loss_of, leaves, batches([len(t) for t in tokens], recipe), recipe, progress)
    trained = {
        site: {part: t.detach() for part, t in tensors.items()} for site, tensors in sites.items()
    }
    return ExpertWeights(card.id, kind.name, kind.group(trained), trained)


def minimise(
    loss_of: Callable[[Sequence[int]], Tensor],
    leaves: Sequence[Tensor],
    batches: Sequence[Sequence[int]],
    recipe: Recipe,
    progress: Progress | None = None,
) -> None:
    """AdamW with warm-up and linear decay over the batches, gradients clipped at norm 1."""
    steps = len(batches)
    optimiser = torch.optim.AdamW(leaves, lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda s: min(1.0, (s + 1) / (recipe.warmup * steps)) * max(0.02, 1 - s / steps)
    )
    for done, batch in enumerate(batches, 1):
        loss = loss_of(batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leaves, 1.0)
        optimiser.step()
        schedule.step()
        if progress:
            progress(done, steps, float(loss.detach()))


def batches(lengths: Sequence[int], recipe: Recipe) -> list[list[int]]:
    """All batches of all epochs, as example indices."""
    rng = random.Random(recipe.seed)
    per_epoch = -(-len(lengths) // recipe.batch_size)
    epochs = max(recipe.epochs, -(-recipe.min_steps // per_epoch))
    return [batch for _ in range(epochs) for batch in _epoch(lengths, recipe.batch_size, rng)]


def _epoch(lengths: Sequence[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    order = list(range(len(lengths)))
    rng.shuffle(order)
    chunk = SORTED_CHUNK * size
    batches: list[list[int]] = []
    for start in range(0, len(order), chunk):
        part = sorted(order[start : start + chunk], key=lambda i: lengths[i])
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    rng.shuffle(batches)
    yield from batches
