"""From a trained expert to a routable one: what `sailplane fit` does, and a server for examples."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from experts.artefacts import Artefacts
from experts.backbones import Backbone
from experts.embedder import Embedder
from experts.library import Entry, Library
from experts.loader import load_expert
from experts.manifest import TaskCard
from experts.training.build import foreign_labels
from experts.training.data import Example, Task
from experts.training.recipe import Recipe
from experts.training.train import Progress
from routers.fitting.artefacts import fit_artefacts
from routers.fitting.describe import describe
from routers.fitting.gates import fit_gates
from routers.metric import Metric

FOREIGN = 256
"""Labels of other experts that are offered as wrong choices: of a large library, a sample."""


def is_fitted(entry: Entry, embedder: Embedder) -> bool:
    """Whether an expert has artefacts made with this embedder."""
    artefacts = entry.read_artefacts()
    return artefacts.routable and artefacts.embedder == embedder.fingerprint


def fit_task(
    backbone: Backbone, embedder: Embedder, library: Library, task: Task,
    cards: Mapping[str, TaskCard], progress: Progress | None = None,
) -> None:  # fmt: skip
    """Compute the artefacts of the task's expert from the task's training examples.

    Raises:
        UnknownExpert: there is none, or it was replaced or removed meanwhile.
    """
    entry = library.get(task.name)
    expert = load_expert(entry, backbone.sites, dtype=backbone.dtype, device=backbone.device)
    recipe = _recipe_of(entry)
    card = cards.get(task.name, entry.manifest)
    artefacts = fit_artefacts(
        backbone, embedder, expert, task.train[: recipe.examples], card,
        foreign_labels(cards, task.name), recipe, metric_of(library, backbone), progress,
    )  # fmt: skip
    library.refit(entry, artefacts, card)


def describe_task(
    backbone: Backbone, embedder: Embedder, library: Library, task: Task
) -> None:  # fmt: skip
    """Give the task's expert what routers can know at once: all but gates.

    Raises:
        UnknownExpert: there is none, or it was replaced or removed meanwhile.
    """
    entry = library.get(task.name)
    expert = load_expert(entry, backbone.sites, dtype=backbone.dtype, device=backbone.device)
    learnt = task.train[: _recipe_of(entry).examples]
    artefacts = describe(
        backbone, embedder, expert, entry.manifest, Artefacts(embedder.fingerprint),
        [e.input for e in learnt], metric_of(library, backbone),
    )  # fmt: skip
    library.refit(entry, artefacts)


def _recipe_of(entry: Entry) -> Recipe:
    """The recipe an expert was trained by; the defaults where its manifest tells none."""
    return Recipe.read(entry.manifest.provenance.get("recipe")) or Recipe()


def fit_described(
    backbone: Backbone, embedder: Embedder, entry: Entry, inputs: Sequence[str],
    examples: Sequence[Example], foreign: Sequence[str], metric: Metric | None,
    progress: Progress | None = None,
) -> Artefacts:  # fmt: skip
    """What the artefacts of a described expert become with labelled examples: gates too.

    Args:
        inputs: of its task; `examples` are those with a label. foreign: labels of other experts.
        metric: the library's.
    """
    expert = load_expert(entry, backbone.sites, dtype=backbone.dtype, device=backbone.device)
    described = describe(
        backbone, embedder, expert, entry.manifest, entry.read_artefacts(), inputs, metric
    )
    gates = fit_gates(backbone, expert, examples, entry.manifest, foreign, Recipe(), progress)
    return replace(described, vectors={**described.vectors, "gate": gates})


def metric_of(library: Library, backbone: Backbone) -> Metric | None:
    """The metric in the library's constants, if it has one."""
    return Metric.from_tensors(library.calibration_tensors(), backbone.feature_width)


def foreign_words(others: Mapping[str, TaskCard]) -> list[str]:
    """Label wordings of other experts, at most `FOREIGN` of them."""
    words = sorted({*foreign_labels(others, "")})
    return words if len(words) <= FOREIGN else random.Random(0).sample(words, FOREIGN)
