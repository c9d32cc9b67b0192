"""A trace as JSON, at the level of detail the caller asked for."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel

from routers.types import Selection
from server.engine.messages import Trace, TraceLevel


class CandidateBody(BaseModel):
    """One candidate of the request router."""

    id: str
    version: int = 1
    score: float
    views: dict[str, float]


class SiteBody(BaseModel):
    """Token mode: which experts one site used."""

    site: str
    experts: dict[str, float]
    tokens: list[tuple[str, str, float]]


class CutBody(BaseModel):
    """How much of an over-long text was read; `part` is its field."""

    part: str
    tokens_sent: int
    tokens_kept: int


class TraceBody(BaseModel):
    """Why these experts answered. The last three come with `trace: full` only."""

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


def trace_json(trace: Trace, level: TraceLevel) -> dict[str, object] | None:
    """The trace for `pydantic_core.to_json`, which takes the selection as it is."""
    if level == "none":
        return None
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
    if level == "full":
        body["tokens"] = [asdict(site) for site in trace.tokens]
        body["cache"] = trace.cache
        body["milliseconds"] = trace.milliseconds
    return body
