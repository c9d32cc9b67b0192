"""Which examples a step takes, and in what order: plain indices, no text and no tensor."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from experts.training.recipe import Recipe

Progress = Callable[[int, int, float], None]
"""Called after each step with (steps done, steps in all, loss)."""

SORTED_CHUNK = 8  # batches are cut from chunks of this many, sorted by length: less padding


class Batch(NamedTuple):
    """Examples of one corpus: its position among the corpora, and theirs within it."""

    corpus: int
    rows: list[int]


Step = tuple[Batch, ...]
"""What one step learns from: a batch, and after it what it remembers of former tasks."""


def schedule(lengths: Sequence[Sequence[int]], recipe: Recipe) -> list[Batch]:
    """The batches of several corpora together: as many as each would have alone.

    Every batch is of one corpus, and the corpora take turns at random (MT-DNN, Liu et al. 2019,
    algorithm 1; here over all epochs at once). Each corpus keeps the order it has alone, so one
    corpus is the plain case.

    Args:
        lengths: of the examples of each corpus, in tokens.
    """
    own = [batches(of_corpus, recipe) for of_corpus in lengths]
    turns = [corpus for corpus, made in enumerate(own) for _ in made]
    random.Random(recipe.seed).shuffle(turns)
    left = [iter(made) for made in own]
    return [Batch(corpus, next(left[corpus])) for corpus in turns]


def remembering(
    made: Sequence[Batch], sizes: Sequence[int], first: int, recipe: Recipe
) -> list[Step]:
    """Each batch with as many examples of memory beside it, or all where memory holds fewer.

    Experience replay as in Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual
    Learning", algorithm 1: what a step remembers is drawn evenly from the whole memory.

    Args:
        sizes: examples of each corpus of memory. first: the position of the first of these.
    """
    rng = random.Random(recipe.seed)
    memory = [(corpus, row) for corpus, size in enumerate(sizes, first) for row in range(size)]
    steps: list[Step] = []
    for batch in made:
        drawn = sorted(rng.sample(memory, min(len(batch.rows), len(memory))))
        by_corpus = {corpus: [row for c, row in drawn if c == corpus] for corpus, _ in drawn}
        steps.append((batch, *(Batch(corpus, rows) for corpus, rows in by_corpus.items())))
    return steps


def batches(lengths: Sequence[int], recipe: Recipe) -> list[list[int]]:
    """All batches of all epochs of one corpus, as example indices."""
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
