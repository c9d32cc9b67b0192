"""Step 9: from an adapted state to an answer.

A choice is `softmax(cos(state, choice) / tau)` with choices embedded by the bare backbone; a
statement is a `Judge`'s. A question that cannot be answered so is refused with the reason, never
guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from experts.errors import MixError
from experts.library import Entry
from routers.calibration import TEMPERATURE
from server.engine.features import FeatureStore
from server.engine.judging import Judge, choose
from server.engine.messages import Answer, Choice, Question
from server.engine.work import Work

SAME = 1e-3
"""Unit vectors nearer than this are one text, read in different batches."""


def warm(
    board: Sequence[Work], entries: Mapping[str, Entry], words: FeatureStore, judge: Judge
) -> None:
    """Compute what the samples' answers compare their states with, in as few passes as possible."""
    statements = [w for w in board if w.sample.question and judges_statement(w.sample.question)]
    judge.warm(statements, entries)
    words.warm(c.text for w in board if w not in statements for c in offered(w, entries))


def answer(
    work: Work, entries: Mapping[str, Entry], words: FeatureStore, judge: Judge,
    temperature: float = TEMPERATURE,
) -> None:  # fmt: skip
    """Set `answer` of one sample from its adapted state, when all it needs is warm.

    Args:
        temperature: see `Calibration`; of choices. What judges statements was fitted without it.

    Raises:
        MixError: the selection's weights drove the state out of the numbers.
    """
    assert work.state_D is not None
    if not work.state_D.isfinite().all():
        raise MixError("These weights and strength overflow the backbone; choose smaller ones.")
    question = work.sample.question
    if question is None:
        work.answer = Answer(embedding=tuple(work.state_D.tolist()))
    elif judges_statement(question):
        work.answer = judge.judge(work, question, entries)
    elif choices := offered(work, entries):
        choice_CD = words.stack([c.text for c in choices])
        work.answer = _chosen(question, choices, choice_CD, work.state_D, temperature)
    else:
        reason = "The question has no choices and no selected expert has labels."
        work.answer = Answer(refusal=reason)


def _chosen(
    question: Question, choices: tuple[Choice, ...], choice_CD: Tensor, state_D: Tensor, tau: float
) -> Answer:
    """An answer among choices, unless another one reads the same to the backbone as the best.

    A tokeniser that folds case reads `US` as `us`, and one without emoji reads all of them alike.
    """
    p_C = choose(state_D, choice_CD, tau)
    best = int(p_C.argmax())
    apart_C = (choice_CD - choice_CD[best]).norm(dim=-1)
    if len(alike := (apart_C < SAME).nonzero().flatten().tolist()) > 1:
        given = "levels" if question.type == "score" else "choices"
        field = given if question.choices else "labels"
        names = " and ".join(f"{field}[{i}]" for i in alike)
        return Answer(refusal=f"The backbone cannot tell {names} apart; say them in other words.")
    return Answer(tuple(p_C.tolist()), choices)


def judges_statement(question: Question) -> bool:
    """Whether the question asks if a statement is true: a predicate, or boolean choices."""
    boolean = bool(question.choices) and all(isinstance(c.value, bool) for c in question.choices)
    return question.type == "predicate" or (question.type == "choice" and boolean)


def offered(work: Work, entries: Mapping[str, Entry]) -> tuple[Choice, ...]:
    """The question's choices, or the best selected expert's own label set."""
    question = work.sample.question
    if question is None or question.choices:
        return question.choices if question else ()
    for expert in work.selection.refs:
        if labels := entries[expert].manifest.labels:
            return tuple(Choice(label.value) for label in labels)
    return ()
