"""How an example is put to the engine under each condition, and what the router sees of it.

Builds on `server.evaluate.put`. Never the task's name; the answer head always has the choices.

| condition | the router sees | the caller sends |
|---|---|---|
| input | the input | the choices as the task has them |
| choices | the input and the choices | the same |
| instruction | the input and a sentence | the same, and one of three paraphrases of the task |
| reworded | the input and the choices | labels in unseen wordings, shuffled, a foreign one added |
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from experts.manifest import TaskCard
from experts.training.data import Example
from server.evaluate import Asked, put

Condition = Literal["input", "choices", "instruction", "reworded"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
SEEN = {"input": "input", "choices": "choices", "instruction": "instruction", "reworded": "choices"}
"""`RoutingOptions.sees` by condition."""
UNSEEN = 2
"""The paraphrase that no fitting used; the two before it are an expert's own."""


@dataclass(frozen=True)
class Asking:
    """One example under one condition; `paraphrase` is which one asks, None where none does."""

    asked: Asked
    condition: Condition
    paraphrase: int | None = None


def paraphrases(card: TaskCard) -> tuple[str, ...]:
    """The sentences a caller might send; the last was never used in fitting. Empty if it is not."""
    seen = card.instructions[:UNSEEN]
    complete = card.instruction_unseen is not None and len(seen) == UNSEEN
    return (*seen, str(card.instruction_unseen)) if complete else ()


def lacks(card: TaskCard | None, condition: Condition, labels: Sequence[str] | None) -> str | None:
    """Why a task cannot be asked so, or None.

    Args:
        labels: the task's fixed labels, None where every question brings its own choices.
    """
    if condition == "instruction" and (card is None or not paraphrases(card)):
        return "its card has not three paraphrases"
    if condition == "reworded" and labels:
        worded = {lb.value for lb in card.labels if lb.unseen} if card else set()
        if missing := sorted(set(labels) - worded):
            return f"its card has no unseen wording of {', '.join(missing[:3])}"
    return None


def ask(
    task: str,
    examples: Sequence[Example],
    card: TaskCard | None,
    condition: Condition,
    words: Sequence[str],
) -> list[Asking]:
    """Every example under a condition; the same in every run.

    Args:
        words: labels of all tasks, of which `reworded` takes the foreign one (`foreign_words`).
    """
    said = paraphrases(card) if card and condition == "instruction" else ()
    found: list[Asking] = []
    for i, example in enumerate(examples):
        asked = put(example, card, condition, random.Random(f"{task}/{i}"), words)
        which = i % len(said) if said else None
        if which is not None:
            asked = replace(asked, instruction=said[which])
        found.append(Asking(asked, condition, which))
    return found
