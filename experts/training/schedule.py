"""Which examples a step takes, and in what order: plain indices, no text and no tensor."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from experts.training.recipe import Recipe

SORTED_CHUNK = 8  # batches are cut from chunks of this many, sorted by length: less padding


class Batch(NamedTuple):
    """Examples of one corpus: its position among the corpora, and theirs within it."""

    corpus: int
    rows: list[int]


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
