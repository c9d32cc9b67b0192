"""From a task folder to an expert in a library: what `sailplane train` does for each task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.library import Library
from experts.manifest import BackboneRef, Label, Manifest, TaskCard
from experts.training.data import Task
from experts.training.recipe import Recipe
from experts.training.train import Progress, train_expert
from experts.writing import write_expert


def read_cards(folder: Path) -> dict[str, TaskCard]:
    """The task cards of a folder by id; none when the folder is not there."""
    cards = (TaskCard.model_validate_json(p.read_bytes()) for p in sorted(folder.glob("*.json")))
    return {card.id: card for card in cards}


def card_of(task: Task, cards: Mapping[str, TaskCard]) -> TaskCard:
    """A task's card, or a bare one made from its definition and labels."""
    if task.name in cards:
        return cards[task.name]
    return TaskCard(
        id=task.name,
        title=task.name.replace("_", " "),
        instructions=(str(task.about.get("definition", task.name)),),
        labels=tuple(Label(value=v) for v in task.labels or ()),
    )


def foreign_labels(cards: Mapping[str, TaskCard], id: str) -> list[str]:
    """Known wordings of all other tasks' labels, or neutral words when there are no other tasks."""
    texts = [w.text for other, card in sorted(cards.items()) if other != id
             for label in card.labels for w in label.known]  # fmt: skip
    return texts or ["something else", "none of these"]


def is_trained(library: Library, task: Task, recipe: Recipe) -> bool:
    """Whether the library has this task's expert, made with this recipe: nothing to do then."""
    entry = library.entries.get(task.name)
    return entry is not None and entry.manifest.provenance.get("recipe") == recipe.model_dump_json()


def train_task(
    backbone: TextEncoder, root: Path, task: Task, cards: Mapping[str, TaskCard], recipe: Recipe,
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Train one task's expert and write it to the library at `root`, not yet fitted."""
    card = card_of(task, cards)
    examples = task.train
    expert = train_expert(
        backbone, examples, card, foreign_labels(cards, task.name), recipe, progress
    )
    manifest = Manifest(
        **card.model_dump(),
        kind=recipe.kind,
        backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
        provenance={
            "source": str(task.about.get("source_repo", "")),
            "commit": str(task.about.get("source_commit", "")),
            "licence": str(task.about.get("licence", "")),
            "examples": len(examples),
            "recipe": recipe.model_dump_json(),
        },
    )
    write_expert(root, manifest, expert, Artefacts(backbone.fingerprint))
