"""Accuracy of routers on task folders, asked through the engine that serves.

What a request router may look at is a condition (`sees`); no router ever sees a task's name. The
oracle is the task's own expert, forced by id.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from experts.library import Library
from experts.manifest import TaskCard
from experts.training.data import Example, Task
from experts.writing import write_scores
from server.engine.messages import Choice, Outcome, Question, RoutingOptions, Sample
from server.engine.queue import Result
from server.engine.run import Engine
from server.written import exact

Sees = Literal["input", "choices", "instruction", "reworded"]
CONDITIONS: tuple[str, ...] = get_args(Sees)
ORACLE = "oracle"
WRITTEN = "written"
"""The condition of scores of texts."""
BATCH = 64
Score = Callable[[Engine, Sequence[str], Sequence[Sample]], Sequence[float]]
"""From texts that are to be written, and samples of like length that ask for them, to scores."""


class Accuracies(TypedDict):
    """Accuracy per router, over all tasks and per task; None where there is no such figure."""

    means: dict[str, float | None]
    tasks: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Asked:
    """One example as it is put to the engine: `answer` is the index of the right choice.

    A text that is to be written is the only one.
    """

    input: str
    choices: tuple[Choice, ...]
    instruction: str
    answer: int

    @property
    def is_written(self) -> bool:
        """Whether the answer is to be written."""
        return len(self.choices) == 1

    @property
    def right(self) -> str:
        """The right choice."""
        return str(self.choices[self.answer].value)


def measure(
    engine: Engine,
    tasks: Sequence[Task],
    routers: Sequence[str],
    sees: Sees,
    cards: Mapping[str, TaskCard],
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
    aside: bool = False,
    written: Score = exact,
) -> Accuracies:
    """Accuracy of every router on every task.

    Args:
        cards: task id -> card, for unseen wordings and instructions. limit: examples per task.
        progress: told how many questions were answered. aside: the examples set aside from the
            train files instead of the test files (calibration). written: how a text that is to be
            written is scored.

    Returns:
        `{"means": {router: accuracy}, "tasks": {task: {router: accuracy}}}`; None where a task
        has no expert of its own (oracle).
    """
    words = foreign_words(cards)
    table: dict[str, dict[str, float | None]] = {}
    for task in tasks:
        examples = (task.aside if aside else task.test)[:limit]
        asked = [
            put(e, cards.get(task.name), sees, random.Random(f"{task.name}/{i}"), words)
            for i, e in enumerate(examples)
        ]
        table[task.name] = {}
        for router in routers:
            samples = [sample_of(a, router, task.name, sees) for a in asked]
            table[task.name][router] = _accuracy(engine, task, asked, samples, router, written)
            if progress:
                progress(len(asked))
    means = {r: _mean([row[r] for row in table.values()]) for r in routers}
    return Accuracies(means=means, tasks=table)


def put(
    example: Example, card: TaskCard | None, sees: Sees, rng: random.Random, words: Sequence[str]
) -> Asked:
    """An example under a condition: reworded labels come shuffled, with a foreign one added.

    A text that is to be written is never reworded.
    """
    instruction = (card.instruction_unseen or "") if card and sees == "instruction" else ""
    choices = [Choice(o) for o in example.options]
    if sees != "reworded" or example.is_written:
        return Asked(example.input, tuple(choices), instruction, example.answer)
    unseen = {lb.value: lb.unseen for lb in card.labels} if card else {}
    choices = [
        Choice(u.value, u.description) if (u := unseen.get(o)) else Choice(o)
        for o in example.options
    ]
    known = {w.text for lb in card.labels for w in lb.known} if card else set()
    taken = {*known, *example.options, *(c.text for c in choices)}
    choices.append(Choice(rng.choice([w for w in words if w not in taken] or ["none of these"])))
    order = rng.sample(range(len(choices)), len(choices))
    return Asked(example.input, tuple(choices[i] for i in order), "", order.index(example.answer))


def foreign_words(cards: Mapping[str, TaskCard]) -> list[str]:
    """Label names of all tasks."""
    return sorted({label.value for card in cards.values() for label in card.labels})


def _accuracy(
    engine: Engine, task: Task, asked: Sequence[Asked], samples: Sequence[Sample], router: str,
    written: Score,
) -> float | None:  # fmt: skip
    if not asked or (router == ORACLE and task.name not in engine.library.entries):
        return None
    if all(one.is_written for one in asked):
        batches = alike(samples)
        told = [([asked[i].right for i in b], [samples[i] for i in b]) for b in batches]
        return sum(sum(written(engine, *batch)) for batch in told) / len(asked)
    right = sum(is_right(outcome, asked[i]) for i, outcome in answered(engine, samples))
    return right / len(asked)


def answered(engine: Engine, samples: Sequence[Sample]) -> Iterator[tuple[int, Result]]:
    """Each sample's position and outcome, or error; those of like length are asked together."""
    for batch in alike(samples):
        yield from zip(batch, engine.run([samples[i] for i in batch]), strict=True)


def alike(samples: Sequence[Sample]) -> list[list[int]]:
    """Positions of samples in batches of like length."""
    order = sorted(range(len(samples)), key=lambda i: len(samples[i].input))
    return [order[start : start + BATCH] for start in range(0, len(order), BATCH)]


def sample_of(asked: Asked, router: str, task: str, sees: Sees) -> Sample:
    """What the engine is asked. Only the oracle's expert follows from the task.

    Instructions are for routing alone: what writes was trained without them. No router sees the
    text that is to be written.
    """
    oracle = router == ORACLE
    shown = "choices" if sees == "reworded" else sees
    return Sample(
        asked.input,
        Question("choice", choices=asked.choices),
        model=task if oracle else "auto",
        options=RoutingOptions(
            router=None if oracle else router,
            instruction=asked.instruction or None,
            truncate=True,
            trace="none",
            sees="input" if shown == "choices" and asked.is_written else shown,
        ),
    )


def is_right(outcome: object, asked: Asked) -> bool:
    """Whether the right choice was made; a refusal is not, and an error is raised."""
    if isinstance(outcome, Exception):
        raise outcome
    assert isinstance(outcome, Outcome)
    assert outcome.answer is not None
    return outcome.answer.best == asked.answer


def record_scores(
    library: Library, result: Accuracies, sees: Sees, written: Collection[str] = ()
) -> None:
    """Note in each expert's manifest how the bare backbone and the expert itself answered.

    Args:
        written: tasks whose answers are texts; of these it matters nothing what routers saw.
    """
    for task, row in result["tasks"].items():
        what = WRITTEN if task in written else sees
        measured = {f"bare_{what}": row.get("base"), f"expert_{what}": row.get(ORACLE)}
        scores = {name: round(v, 4) for name, v in measured.items() if v is not None}
        if scores and task in library.entries:
            write_scores(library.get(task), scores)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
