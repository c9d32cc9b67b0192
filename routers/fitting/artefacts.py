"""All routing artefacts of one expert from its training examples, its card and its weights."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from experts.artefacts import Artefacts
from experts.backbones import Backbone
from experts.embedder import Embedder
from experts.manifest import TaskCard
from experts.training.data import Example
from experts.training.recipe import Recipe
from experts.training.train import Progress
from experts.weights import ExpertWeights
from routers.fitting.arrow import arrow_coefficients
from routers.fitting.centroids import spherical_kmeans
from routers.fitting.gates import fit_gates
from routers.fitting.inputs import with_inputs
from routers.metric import Metric

CHOICE_PROTOTYPES = 32
CHOICE_SAMPLE = 600


def fit_artefacts(
    backbone: Backbone,
    embedder: Embedder,
    expert: ExpertWeights,
    examples: Sequence[Example],
    card: TaskCard,
    foreign: Sequence[str],
    recipe: Recipe,
    metric: Metric | None,
    progress: Progress | None = None,
) -> Artefacts:
    """Instruction and choice vectors, what inputs tell, gates and Arrow prototypes.

    Uses only what training may use: `unseen` wordings and sentences stay out.
    """
    vectors = {"gate": fit_gates(backbone, expert, examples, card, foreign, recipe, progress)}
    if arrows := arrow_coefficients(expert):
        vectors["arrow"] = arrows
    told = Artefacts(
        embedder.fingerprint,
        instructions=embedder.embed(card.instructions) if card.instructions else None,
        choices=_choices(embedder, examples, card),
        vectors=vectors,
    )
    return with_inputs(told, backbone, [e.input for e in examples], metric)


def _choices(embedder: Embedder, examples: Sequence[Example], card: TaskCard) -> Tensor:
    """Every known wording of every label in order; or prototypes of the questions' own choices."""
    if card.labels:
        return embedder.embed([w.text for label in card.labels for w in label.known])
    options = sorted({o for e in examples for o in e.options})
    sample = random.Random(0).sample(options, min(CHOICE_SAMPLE, len(options)))
    with torch.inference_mode():
        return spherical_kmeans(embedder.embed(sample), CHOICE_PROTOTYPES)
