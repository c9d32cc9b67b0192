"""Is a question routed as it was before, and if not, what changed?

Compares a trace that was kept with one made now. Reads the files that `sailplane route --json`,
`/v1/route`, `/v1/decisions`, `/v1/embeddings` and `sailplane batch` write; routes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isclose
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from routers.types import Selection
from routers.weighing import STRENGTHS
from server.api.faults import from_validation
from server.api.traces import CandidateBody, TraceBody
from server.engine.tracing import SHOWN_CANDIDATES
from server.errors import ReplayError

SCORE = 1e-5
"""What a score may differ by: float32, in another batch with other padding."""
WEIGHT = 1e-3
"""What a weight, a prior or a confidence may differ by: the rules scale a score by about 100 at
most."""
STEP = (1 + SCORE) / STRENGTHS
"""What strengths may differ by that were rounded from the same one."""

Kind = Literal[
    "router", "calibration", "generation", "backbone", "top_k", "instruction", "writer", "version",
    "removed", "bad", "added", "score", "truncated", "load", "error",
]  # fmt: skip


class Asked(BaseModel):
    """The question behind a trace, as `sailplane route` was asked it, and by whom."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: str
    instructions: str = ""
    choices: tuple[str, ...] = ()
    model: str = "auto"
    backbone: str = ""
    top_k: int | None = None


@dataclass(frozen=True)
class Recording:
    """What a file holds: a trace, and the question where the file says it."""

    trace: TraceBody
    asked: Asked | None = None


@dataclass(frozen=True)
class Now:
    """What routing depends on today.

    Attributes:
        versions: of every expert of the library. bad: those that cannot be served, with reasons.
        top_k: as `Asked` has it.
    """

    versions: Mapping[str, int]
    bad: Mapping[str, str] = field(default_factory=dict[str, str])
    backbone: str = ""
    top_k: int | None = None


@dataclass(frozen=True)
class Change:
    """One thing that is not as it was; None where there was or is nothing."""

    kind: Kind
    expert: str | None = None
    before: object = None
    after: object = None


@dataclass(frozen=True)
class Comparison:
    """Whether the selection is the same, and all that changed, whether it mattered or not."""

    same: bool
    before: Selection
    after: Selection | None
    changes: tuple[Change, ...]


def read_recording(data: bytes, question: int | None = None) -> Recording:
    """The trace in a file's text.

    Args:
        question: which trace is meant where there are several, from 0.

    Raises:
        ReplayError: there is none, or several and none is named.
    """
    try:
        told = from_json(data)
    except ValueError as error:
        raise ReplayError(f"The trace is not JSON: {error}.") from None
    found, asked = _traces(told)
    if question is None and len(found) > 1:
        raise ReplayError(f"There are {len(found)} traces: name one, --question 0 and so on.")
    if not 0 <= (question or 0) < len(found):
        raise ReplayError(f"There is no trace of question {question or 0}: there are {len(found)}.")
    trace = found[question or 0]
    if trace is None:
        raise ReplayError("That question has no trace: it failed, or was asked with trace 'none'.")
    try:
        said = None if asked is None else Asked.model_validate(asked)
        return Recording(TraceBody.model_validate(trace), said)
    except ValidationError as error:
        raise ReplayError(f"This is no trace. {from_validation(error).message}.") from None


def compare(
    before: TraceBody, after: TraceBody | str, now: Now, asked: Asked | None = None
) -> Comparison:
    """What is not as it was.

    Args:
        after: the trace made now, or why there is none.
    """
    if isinstance(after, str):
        gone = _experts(before, None, now)
        changes = (*gone, Change("error", after=after))
        return Comparison(False, before.selection, None, changes)
    changes = (
        *_rules(before, after, now, asked),
        *_experts(before, after, now),
        *(_scores(before, after, now) if before.router == after.router else ()),
    )
    apart = STEP if _as_sure(before, after) else 0.0
    same = same_selection(before.selection, after.selection, apart)
    return Comparison(same, before.selection, after.selection, changes)


def _as_sure(before: TraceBody, after: TraceBody) -> bool:
    """Whether the policy was as sure, up to rounding, by the same constants.

    Then strengths, which follow from that and are rounded to steps, are the same or lie on the two
    sides of an edge.
    """
    one, other = before.confidence, after.confidence
    if one is None or other is None or before.calibration != after.calibration:
        return False
    return _near((one,), (other,))


def same_selection(one: Selection, other: Selection, apart: float = 0.0) -> bool:
    """Whether two selections mix the same experts in the same way, up to rounding.

    Reasons may differ, and the order of experts with equal weights.

    Args:
        apart: how far strengths may be from each other, beside rounding.
    """
    if (one.mode, one.token_router) != (other.mode, other.token_router):
        return False
    if one.mode == "token" and one.top_k != other.top_k:
        return False
    ours = {(e.id, e.version, e.fixed): (e.weight, e.prior) for e in one.experts}
    theirs = {(e.id, e.version, e.fixed): (e.weight, e.prior) for e in other.experts}
    return (
        ours.keys() == theirs.keys()
        and isclose(one.strength, other.strength, rel_tol=SCORE, abs_tol=apart)
        and all(_near(ours[key], theirs[key]) for key in ours)
    )


def _near(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    return all(
        isclose(a, b, rel_tol=SCORE, abs_tol=WEIGHT) for a, b in zip(ours, theirs, strict=True)
    )


def _traces(told: object) -> tuple[Sequence[object], object]:
    """The traces in a file, whoever wrote it, and the question as `sailplane route` writes it."""
    if not isinstance(told, dict):
        raise ReplayError("Expected a JSON object with a trace.")
    if isinstance(told.get("response"), dict):  # a line of `sailplane batch`
        return _traces(told["response"].get("body"))
    if "error" in told:
        raise ReplayError("This is an error, and an error has no trace.")
    routing = told.get("routing")
    if isinstance(routing, dict) and isinstance(routing.get("questions"), list):
        return routing["questions"], None
    if isinstance(routing, dict) and "trace" in routing:
        return [routing["trace"]], None
    if "trace" in told:
        return [told["trace"]], told.get("asked")
    return [told], None


def _rules(before: TraceBody, after: TraceBody, now: Now, asked: Asked | None) -> Iterator[Change]:
    """What routes, and what was read of the question."""
    kinds: tuple[Kind, ...] = ("router", "calibration", "generation", "instruction", "writer")
    for kind in kinds:
        if getattr(before, kind) != getattr(after, kind):
            yield Change(kind, None, getattr(before, kind), getattr(after, kind))
    settings: tuple[Kind, ...] = ("backbone", "top_k")
    for kind in settings:
        if asked is not None and getattr(asked, kind) != getattr(now, kind):
            yield Change(kind, None, getattr(asked, kind), getattr(now, kind))
    cuts = [{c.part: (c.tokens_sent, c.tokens_kept) for c in t.truncated} for t in (before, after)]
    if cuts[0] != cuts[1]:
        yield Change("truncated", None, *cuts)
    for id in sorted({*before.replaced} ^ {*after.replaced}):
        was = id in before.replaced
        yield Change("load", id, *(("failed", "loads") if was else ("loaded", "fails")))


def _experts(before: TraceBody, after: TraceBody | None, now: Now) -> Iterator[Change]:
    """Experts of the trace that are no more, cannot be served, or are of another version."""
    current = dict(now.versions) | _versions(after)
    for id, version in _versions(before).items():
        if id in now.bad:
            yield Change("bad", id, version, now.bad[id])
        elif id not in current:
            yield Change("removed", id, version)
        elif current[id] != version:
            yield Change("version", id, version, current[id])


def _versions(trace: TraceBody | None) -> dict[str, int]:
    """The version of every expert a trace names."""
    if trace is None:
        return {}
    return {e.id: e.version for e in (*trace.candidates, *trace.selection.experts)}


def _scores(before: TraceBody, after: TraceBody, now: Now) -> Iterator[Change]:
    """One router's scores that moved. A trace holds the best; of others nothing is known."""
    ours, theirs = _by_id(before.candidates), _by_id(after.candidates)
    if not ours or not theirs:
        return
    for id, score in ours.items():
        if id in theirs:
            if abs(score - theirs[id]) > SCORE:
                yield Change("score", id, score, theirs[id])
        elif id in now.versions and id not in now.bad and score > _floor(theirs) + SCORE:
            yield Change("score", id, score)
    for id, score in theirs.items():
        if id not in ours and score > _floor(ours) + SCORE:
            yield Change("added", id, None, score)


def _by_id(candidates: Sequence[CandidateBody]) -> dict[str, float]:
    return {c.id: c.score for c in candidates}


def _floor(scores: Mapping[str, float]) -> float:
    """What an expert must score to be shown among these: anything, where there was room left."""
    return min(scores.values()) if len(scores) >= SHOWN_CANDIDATES else -inf
