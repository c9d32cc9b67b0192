"""The trace of one sample, put together from what the stages left behind. Decides nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from server.engine.messages import CandidateTrace, Trace
from server.engine.work import Clock, Work

SHOWN_CANDIDATES = 8


def trace_of(
    work: Work, clock: Clock, held: Collection[str], calibration: str, note: str | None = None
) -> Trace:
    """Freeze what is known of a sample."""
    decision = work.decision
    assert decision is not None
    instruction = work.instruction
    full = work.sample.options.trace == "full"
    return Trace(
        router=work.preset.name if work.preset else "explicit",
        selection=decision.selection,
        instruction=instruction.text if instruction else "",
        writer=instruction.writer if instruction else "none",
        writer_note=instruction.note if instruction else None,
        candidates=_candidates(work),
        calibration=calibration if work.preset else None,
        calibration_note=note if work.preset else None,
        alpha=decision.alpha,
        confidence=decision.confidence,
        narrowed=decision.narrowed,
        fallback=decision.fallback,
        dropped={**decision.dropped, **work.dropped},
        replaced=work.replaced,
        truncated=work.truncated,
        tokens=work.token_traces,
        cache=_cache(decision.selection.refs, held) if full else {},
        milliseconds=_milliseconds(work, clock),
    )


def _milliseconds(work: Work, clock: Clock) -> dict[str, float]:
    """The batch's time per stage, and what writing this sample's instruction took before it."""
    spent = dict(clock.milliseconds)
    if work.sample.writing_ms:
        spent["instruction"] = round(spent.get("instruction", 0.0) + work.sample.writing_ms, 3)
    return spent


def _cache(refs: Sequence[str], held: Collection[str]) -> dict[str, int]:
    """How many of the sample's own experts were in memory."""
    hits = sum(ref in held for ref in refs)
    return {"hits": hits, "misses": len(refs) - hits}


def _candidates(work: Work) -> tuple[CandidateTrace, ...]:
    """The best experts by the request router's score, with the views it was made of."""
    scores = work.scores
    if scores is None or work.sample.options.trace == "none":
        return ()
    best = scores.score_E.topk(min(SHOWN_CANDIDATES, len(scores.score_E)))
    return tuple(
        CandidateTrace(
            work.catalogue_ids[int(i)],
            round(float(score), 6),
            {name: round(float(view_E[i]), 4) for name, view_E in scores.views.items()},
        )
        for score, i in zip(best.values, best.indices.tolist(), strict=True)
    )
