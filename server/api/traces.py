"""A trace as JSON, at the level of detail the caller asked for."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from routers.types import Selection
from server.engine.messages import Outcome, Stage, TokenTrace, TraceLevel


class CandidateBody(BaseModel):
    """One candidate of the request router."""

    id: str
    version: int = 1
    score: float
    views: dict[str, float]


class SiteBody(BaseModel):
    """Token mode: which experts one site used.

    `tokens` is the best expert of each of the first tokens: its place, the expert, its weight. With
    `trace: tokens`, `weights` is every expert's weight at every token that the site sees; the first
    of them is number `first` of the trace's `spelled`.
    """

    site: str
    experts: dict[str, float]
    tokens: list[tuple[int, str, float]]
    weights: dict[str, list[float]] | None = None
    first: int | None = None


class StageBody(BaseModel):
    """A stretch of work on the batch that the sample was in, or of waiting for it.

    `begins`: milliseconds after the first of them began.
    """

    stage: str
    begins: float
    milliseconds: float


class CutBody(BaseModel):
    """How much of an over-long text was read; `part` is its field."""

    part: str
    tokens_sent: int
    tokens_kept: int


class TraceBody(BaseModel):
    """Why these experts answered.

    `tokens`, `cache`, `milliseconds` and `stages` come with `trace: full`; with `trace: tokens`
    come the tokens as they read, too (`spelled`), of which the last `written` are the answer's.
    """

    router: str
    selection: Selection
    generation: str
    instruction: str
    writer: str
    writer_note: str | None = None
    candidates: list[CandidateBody]
    confidence: float | None = None
    calibration: str | None = None
    calibration_note: str | None = None
    alpha: float | None = None
    narrowed: bool = False
    fallback: str | None = None
    dropped: dict[str, str]
    replaced: list[str]
    truncated: list[CutBody]
    tokens: list[SiteBody] | None = None
    cache: dict[str, int] | None = None
    milliseconds: dict[str, float] | None = None
    stages: list[StageBody] | None = None
    spelled: list[str] | None = None
    written: int | None = None


def trace_json(outcome: Outcome, level: TraceLevel) -> dict[str, object] | None:
    """A trace for `pydantic_core.to_json`, which takes the selection as it is."""
    if level == "none":
        return None
    trace = outcome.trace
    body: dict[str, object] = {
        "router": trace.router,
        "selection": trace.selection,
        "generation": trace.generation,
        "instruction": trace.instruction,
        "writer": trace.writer,
        "writer_note": trace.writer_note,
        "candidates": [
            {"id": c.id, "version": c.version, "score": c.score, "views": c.views}
            for c in trace.candidates
        ],
        "confidence": trace.confidence,
        "calibration": trace.calibration,
        "calibration_note": trace.calibration_note,
        "alpha": trace.alpha,
        "narrowed": trace.narrowed,
        "fallback": trace.fallback,
        "dropped": trace.dropped,
        "replaced": list(trace.replaced),
        "truncated": [
            {"part": c.part, "tokens_sent": c.sent, "tokens_kept": c.kept} for c in trace.truncated
        ],
    }
    if level in ("full", "tokens"):
        body["tokens"] = [_site(site, level) for site in trace.tokens]
        body["cache"] = trace.cache
        body["milliseconds"] = trace.milliseconds
        body["stages"] = _stages(outcome.stages)
    if level == "tokens":
        body["spelled"], body["written"] = trace.spelled, trace.written
    return body


def _stages(stages: Sequence[Stage]) -> list[dict[str, object]]:
    since = stages[0].begun if stages else 0.0
    return [
        {"stage": s.name, "begins": _ms(s.begun - since), "milliseconds": _ms(s.ended - s.begun)}
        for s in stages
    ]


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _site(site: TokenTrace, level: TraceLevel) -> dict[str, object]:
    told: dict[str, object] = {
        "site": site.site, "experts": site.experts, "tokens": site.tokens,
    }  # fmt: skip
    if level == "tokens":
        told |= {"weights": site.weights, "first": site.first}
    return told
