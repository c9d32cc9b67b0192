"""Routers scored on a log's feedback: what real callers said of real answers.

Unlike `server.evaluate`, nobody asks every router the same questions here: figures of two routers
are of the questions that each was given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from server.evidence.figures import Accuracy, accuracy, calibration_error, mean
from server.evidence.reader import Row


@dataclass(frozen=True)
class Score:
    """One router, or one expert by the answers in which it had the most weight.

    Attributes:
        confidence: mean probability of the answers with feedback. error: their expected
            calibration error. routing: mean routing confidence of the same.
    """

    name: str
    questions: int
    accuracy: Accuracy
    confidence: float | None
    error: float | None
    routing: float | None


@dataclass(frozen=True)
class Scores:
    """By router, and by expert."""

    routers: Sequence[Score]
    experts: Sequence[Score]


def score(rows: Sequence[Row]) -> Scores:
    """Score every router and every first expert in the log, the most questions first."""
    return Scores(_by(rows, lambda row: row.router), _by(rows, lambda row: row.first))


def _by(rows: Sequence[Row], key: Callable[[Row], str]) -> list[Score]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    found = [_score(name, own) for name, own in groups.items()]
    return sorted(found, key=lambda one: (-one.questions, one.name))


def _score(name: str, rows: Sequence[Row]) -> Score:
    known = [row for row in rows if row.right is not None]
    claims = [(row.probability, bool(row.right)) for row in known if row.probability is not None]
    return Score(
        name,
        len(rows),
        accuracy(row.right for row in known),
        mean(probability for probability, _ in claims),
        calibration_error(claims),
        mean(row.confidence for row in known if row.confidence is not None),
    )
