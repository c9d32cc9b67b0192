"""From task folders to an expert in a library: what `sailplane train` does for each expert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from experts.artefacts import Artefacts
from experts.backbones import Backbone
from experts.entries import Entry, first_error, require_id
from experts.files import sha256_of
from experts.library import Library
from experts.manifest import BackboneRef, Label, Manifest, TaskCard
from experts.training.course import Corpus
from experts.training.data import Task, TaskFormatError
from experts.training.past import AFRESH, TOLD, Past
from experts.training.recipe import Recipe
from experts.training.schedule import Progress
from experts.training.train import train_expert
from experts.writing import write_expert

SOURCES = {"source": "source_repo", "commit": "source_commit", "licence": "licence"}
"""What a manifest tells of the data, and the key of `task.json` that has it."""

SAID = ("title", "instructions", "instruction_unseen", "samples")
"""What `task.json` may say of a task that has no card."""

DIGITS = 12
"""Of a train file's sha256, in a manifest."""


def read_cards(folder: Path) -> dict[str, TaskCard]:
    """The task cards of a folder by id; none when the folder is not there."""
    cards = (TaskCard.model_validate_json(p.read_bytes()) for p in sorted(folder.glob("*.json")))
    return {card.id: card for card in cards}


def card_of(task: Task, cards: Mapping[str, TaskCard]) -> TaskCard:
    """A task's card, or one made from what `task.json` says: at least a definition, and labels.

    Raises:
        TaskFormatError: `task.json` says it in another form.
    """
    if task.name in cards:
        return cards[task.name]
    told: dict[str, object] = {
        "id": task.name,
        "title": task.name.replace("_", " "),
        "instructions": (str(task.about.get("definition", task.name)),),
        "labels": tuple(Label(value=v) for v in task.labels or ()),
    }
    told |= {name: task.about[name] for name in SAID if name in task.about}
    try:
        return TaskCard.model_validate(told)
    except ValidationError as error:
        raise TaskFormatError(f"{task.folder / 'task.json'}: {first_error(error)}.") from error


def foreign_labels(cards: Mapping[str, TaskCard], id: str) -> list[str]:
    """Known wordings of all other tasks' labels, or neutral words when there are no other tasks."""
    texts = [w.text for other, card in sorted(cards.items()) if other != id
             for label in card.labels for w in label.known]  # fmt: skip
    return texts or ["something else", "none of these"]


def card_of_all(id: str, tasks: Sequence[Task]) -> TaskCard:
    """The card of an expert of several tasks: nothing that a router could choose it by."""
    return TaskCard(id=require_id(id), title=f"{len(tasks)} tasks together")


def is_trained(
    library: Library, id: str, tasks: Sequence[Task], recipe: Recipe, past: Past = AFRESH
) -> bool:
    """Whether the library has this expert, trained like this: nothing to do then.

    An expert that does not tell its data is taken for one of this data.
    """
    entry = library.entries.get(id)
    if entry is None:
        return False
    stored = entry.manifest.provenance
    told = {key: text for key in TOLD if (text := stored.get(key))}
    # An expert of one task may leave its task unsaid.
    same = stored.get("tasks", id) == _names(tasks)
    same = same and ("data" not in stored or stored["data"] == _data(tasks))
    return same and told == past.told and Recipe.read(stored.get("recipe")) == recipe


def train_tasks(
    backbone: Backbone, root: Path, id: str, tasks: Sequence[Task],
    cards: Mapping[str, TaskCard], recipe: Recipe, progress: Progress | None = None,
    past: Past = AFRESH,
) -> Entry:  # fmt: skip
    """Train one expert and write it to the library at `root`, not yet fitted.

    Args:
        id: a task's name for the expert of that task alone; any other for one expert of all tasks.
        cards: of every known task, by id. past: see `train_expert`.

    Raises:
        BadExpert: `id` cannot be an expert's id.
    """
    card = card_of(tasks[0], cards) if id == _names(tasks) else card_of_all(id, tasks)
    corpora = [corpus_of(task, cards, recipe) for task in tasks]
    expert = train_expert(id, backbone, corpora, recipe, progress, past)
    told = {key: "; ".join(str(t.about.get(about, "")) for t in tasks)
            for key, about in SOURCES.items()}  # fmt: skip
    manifest = Manifest(
        **card.model_dump(),
        kind=recipe.kind,
        backbone=BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint),
        provenance={
            "tasks": _names(tasks),
            "data": _data(tasks),
            **told,
            "examples": sum(len(corpus.examples) for corpus in corpora),
            "recipe": recipe.model_dump_json(),
            **past.told,
        },
    )
    return write_expert(root, manifest, expert, Artefacts(backbone.fingerprint))


def corpus_of(task: Task, cards: Mapping[str, TaskCard], recipe: Recipe) -> Corpus:
    """What a task teaches: its training examples, its card and the other tasks' labels."""
    examples = task.train[: recipe.examples]
    return Corpus(examples, card_of(task, cards), foreign_labels(cards, task.name))


def _data(tasks: Sequence[Task]) -> str:
    """Names the contents of the tasks' train files."""
    return ", ".join(sha256_of(task.train_path)[:DIGITS] for task in tasks)


def _names(tasks: Sequence[Task]) -> str:
    return ", ".join(task.name for task in tasks)
