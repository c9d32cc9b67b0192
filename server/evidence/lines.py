"""From what the engine said of a request to the lines of the log. Runs in the writer's thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from routers.types import Selection
from server.engine.messages import Answer, Outcome, Question, Sample
from server.evidence.record import (
    DIGITS,
    Answered,
    Candidate,
    RoutedLine,
    Sees,
    Selected,
    Weighed,
    digests,
)

SEES: dict[tuple[bool, bool], Sees] = {
    (False, False): "input", (True, False): "choices",
    (False, True): "instruction", (True, True): "all",
}  # fmt: skip
"""By whether there are choices, and whether somebody wrote an instruction."""


@dataclass(frozen=True)
class Served:
    """One request that was answered.

    Attributes:
        time: seconds since the epoch. latency_ms: from its arrival to its results.
        results: an `Outcome` or an error for each sample.
    """

    request_id: str
    time: float
    latency_ms: float
    samples: Sequence[Sample]
    results: Sequence[object]

    def lines(self) -> Iterator[RoutedLine]:
        """A line for each sample that did not fail."""
        for i, (sample, result) in enumerate(zip(self.samples, self.results, strict=True)):
            if isinstance(result, Outcome):
                yield self._line(i, sample, result)

    def _line(self, i: int, sample: Sample, result: Outcome) -> RoutedLine:
        trace = result.trace
        question = sample.question
        answered = _answered(question, result.answer)
        options = _options(question, result.answer) if answered else ()
        return RoutedLine(
            time=self.time,
            request_id=self.request_id,
            question=i,
            router=trace.router,
            sees=SEES[bool(question and question.choices), trace.writer in ("caller", "openai")],
            candidates=tuple(Candidate(id=c.id, score=c.score) for c in trace.candidates),
            selection=_selected(trace.selection),
            confidence=None if trace.confidence is None else round(trace.confidence, DIGITS),
            alpha=trace.alpha,
            fallback=trace.fallback,
            replaced=trace.replaced,
            narrowed=trace.narrowed,
            library=trace.generation,
            calibration=trace.calibration,
            latency_ms=self.latency_ms,
            tokens=result.tokens,
            answer=answered,
            values=digests(self.request_id, options),
        )


def _selected(selection: Selection) -> Selected:
    return Selected(
        mode=selection.mode,
        experts=tuple(
            Weighed(id=e.id, version=e.version, weight=round(e.weight, DIGITS))
            for e in selection.experts
        ),
        strength=selection.strength,
        token_router=selection.token_router,
        top_k=selection.top_k,
    )


def _answered(question: Question | None, answer: Answer | None) -> Answered | None:
    if question is None or answer is None or not answer.probabilities:
        return None
    shares = answer.probabilities
    if question.type == "predicate":
        shares = (shares[0], 1 - shares[0])
    index = max(range(len(shares)), key=shares.__getitem__)
    return Answered(index=index, probability=round(shares[index], DIGITS))


def _options(question: Question | None, answer: Answer | None) -> list[str | bool]:
    """The values that the answer's index is a place in."""
    if question is not None and question.type == "predicate":
        return [True, False]
    return [choice.value for choice in answer.choices] if answer else []
