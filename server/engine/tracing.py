"""The trace of one sample, put together from what the stages left behind. Decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from experts.tiers import Tier
from server.engine.messages import CandidateTrace, Trace
from server.engine.view import Built
from server.engine.work import Clock, Work

SHOWN_CANDIDATES = 8


def trace_of(work: Work, clock: Clock, found: Mapping[str, Tier], built: Built) -> Trace:
    """Freeze what is known of a sample.

    Args:
        found: where each expert was. built: what the batch was routed by.
    """
    decision = work.decision
    assert decision is not None
    instruction = work.instruction
    return Trace(
        router=work.preset.name if work.preset else "explicit",
        selection=decision.selection,
        generation=work.generation,
        instruction=instruction.text if instruction else "",
        writer=instruction.writer if instruction else "none",
        writer_note=instruction.note if instruction else None,
        candidates=_candidates(work),
        calibration=built.calibration.version if work.preset else None,
        calibration_note=built.note if work.preset else None,
        alpha=decision.alpha,
        confidence=decision.confidence,
        top_score=_top_score(work),
        narrowed=decision.narrowed,
        fallback=decision.fallback,
        dropped={**decision.dropped, **work.dropped},
        replaced=work.replaced,
        truncated=work.truncated,
        tokens=work.token_traces,
        spelled=work.spelled,
        written=work.written,
        cache=_cache(decision.selection.refs, found) if work.sample.options.listens else {},
        milliseconds=_milliseconds(work, clock),
    )


def _milliseconds(work: Work, clock: Clock) -> dict[str, float]:
    """The batch's time per stage, and what writing this sample's instruction took before it."""
    spent = dict(clock.milliseconds)
    if work.sample.writing_ms:
        spent["instruction"] = round(spent.get("instruction", 0.0) + work.sample.writing_ms, 3)
    return spent


def _cache(refs: Sequence[str], found: Mapping[str, Tier]) -> dict[str, int]:
    """How many of the sample's own experts each tier held."""
    return {"device": 0, "host": 0, "disk": 0} | Counter(found[ref] for ref in refs)


def _top_score(work: Work) -> float | None:
    scores = work.scores
    if scores is None or work.catalogue is None or not len(scores.score_E):
        return None
    return float(scores.score_E.max())


def _candidates(work: Work) -> tuple[CandidateTrace, ...]:
    """The best experts by the request router's score, with the views it was made of."""
    scores, catalogue = work.scores, work.catalogue
    if scores is None or catalogue is None or work.sample.options.trace == "none":
        return ()
    best = scores.score_E.topk(min(SHOWN_CANDIDATES, len(scores.score_E)))
    return tuple(
        CandidateTrace(
            catalogue.ids[i],
            round(float(score), 6),
            {name: round(float(view_E[i]), 4) for name, view_E in scores.views.items()},
            catalogue.experts[i].version,
        )
        for score, i in zip(best.values, best.indices.tolist(), strict=True)
    )
