"""From a trained expert to a routable one: what `sailplane fit` does for each task."""

from __future__ import annotations

from collections.abc import Mapping

from experts.backbones import TextEncoder
from experts.embedder import Embedder
from experts.library import Entry, Library
from experts.loader import load_expert
from experts.manifest import TaskCard
from experts.training.build import foreign_labels
from experts.training.data import Task
from experts.training.recipe import Recipe
from experts.training.train import Progress
from experts.writing import write_artefacts
from routers.fitting.artefacts import fit_artefacts


def is_fitted(entry: Entry, embedder: Embedder) -> bool:
    """Whether an expert has artefacts made with this embedder."""
    artefacts = entry.read_artefacts()
    return artefacts.routable and artefacts.embedder == embedder.fingerprint


def fit_task(
    backbone: TextEncoder, embedder: Embedder, library: Library, task: Task,
    cards: Mapping[str, TaskCard], progress: Progress | None = None,
) -> None:  # fmt: skip
    """Compute the artefacts of the task's expert from the task's training examples."""
    entry = library.get(task.name)
    expert = load_expert(entry, backbone.sites, dtype=backbone.dtype, device=backbone.device)
    stored = entry.manifest.provenance.get("recipe")
    recipe = Recipe.model_validate_json(stored) if isinstance(stored, str) else Recipe()
    card = cards.get(task.name, entry.manifest)
    artefacts = fit_artefacts(
        backbone, embedder, expert, task.train, card, foreign_labels(cards, task.name), recipe,
        progress,
    )  # fmt: skip
    write_artefacts(entry, artefacts, card=card)
