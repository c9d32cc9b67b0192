"""`POST /v1/decisions`: choice, predicate and score questions about one input.

The shapes are those of the OpenAI client (`client.decisions.create`); our extensions are the
`routing` object, absent `choices`, and the `reason` of a refusal. Each question routes on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from experts.errors import BadExpert
from server.api.context import Answered, Context, context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, respond
from server.api.traces import TraceBody, trace_json
from server.api.wire.base import Text, Wire
from server.api.wire.inputs import Input, render_input
from server.api.wire.questions import Questions
from server.api.wire.routing import NO_WISHES, RequestRouting, options_per_question, places
from server.engine.messages import Answer, Outcome, Question, Sample
from server.engine.queue import Result
from server.errors import located

router = APIRouter(prefix="/v1", tags=["decisions"], route_class=LeanRoute)


class CacheOptions(Wire):
    """Of the client's prompt cache: no effect here."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m"] = "30m"


class DecisionRequest(Wire):
    """Questions about an input.

    `prompt_cache_key`, `prompt_cache_options` and `safety_identifier` are accepted because they
    cannot change an answer. Every other field that is not listed here is an error.
    """

    model: Text = Field(description="`auto`, an expert's id, or the backbone's id.")
    input: Input
    questions: Questions
    routing: RequestRouting = NO_WISHES
    prompt_cache_key: str | None = None
    prompt_cache_options: CacheOptions | None = None
    safety_identifier: str | None = None


class ChoiceShare(BaseModel):
    """One option's probability."""

    value: str | bool
    probability: float


class ChoiceAnswer(BaseModel):
    """The likeliest option; `confidence` is its probability."""

    type: Literal["choice"]
    name: str | None
    choice: str | bool
    confidence: float
    probabilities: list[ChoiceShare]


class PredicateAnswer(BaseModel):
    """How likely the statement is true."""

    type: Literal["predicate"]
    name: str | None
    probability: float


class LevelShare(BaseModel):
    """One level's probability; `value` is its place, from 0."""

    value: int
    label: str
    probability: float


class ScoreAnswer(BaseModel):
    """The expectation over the levels' places; `confidence` is the highest probability."""

    type: Literal["score"]
    name: str | None
    score: float
    confidence: float
    probabilities: list[LevelShare]


class RefusalAnswer(BaseModel):
    """A question that could not be answered while others may have been."""

    type: Literal["refusal"]
    name: str | None
    reason: str


class TokenDetails(BaseModel):
    """Nothing is cached across requests."""

    cache_write_tokens: int = 0
    cached_tokens: int = 0


class OutputDetails(BaseModel):
    """Nothing is generated."""

    reasoning_tokens: int = 0


class Usage(BaseModel):
    """Tokens of the input, once per question."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class RoutingReport(BaseModel):
    """A trace per question, in order; null where there is none to show."""

    questions: list[TraceBody | None]


AnyAnswer = Annotated[
    ChoiceAnswer | PredicateAnswer | ScoreAnswer | RefusalAnswer, Field(discriminator="type")
]


class DecisionResponse(BaseModel):
    """Answers in the order of the questions."""

    model: str
    answers: list[AnyAnswer]
    usage: Usage
    routing: RoutingReport


@router.post("/decisions", response_model=DecisionResponse, responses=ERROR_RESPONSES)
async def create_decision(body: DecisionRequest, request: Request) -> Response:
    """Answer every question about the input, each by the experts routed for it."""
    ctx = context(request)
    return respond(request, await decide(ctx, body, ctx.deadline(body.routing.timeout_ms)))


async def decide(ctx: Context, body: DecisionRequest, deadline: float | None) -> Answered:
    """The answer to a request, over HTTP or not.

    Args:
        deadline: on the clock of `time.monotonic`.

    Raises:
        ServerError, ExpertError: the request cannot be answered.
    """
    samples = decision_samples(ctx, body)
    results = answerable(await ctx.service.submit(samples, deadline=deadline))
    answers = [
        answer_json(sample.question, result)
        for sample, result in zip(samples, results, strict=True)
        if sample.question is not None
    ]
    told: dict[str, object] = {
        "model": body.model,
        "answers": answers,
        "usage": usage_json(results),
        "routing": {"questions": traces_json(samples, results)},
    }
    return Answered(told, samples, results)


def decision_samples(ctx: Context, body: DecisionRequest, *, predict: bool = True) -> list[Sample]:
    """One sample per question.

    Raises:
        UnknownModel, UnknownExpert, BadExpert, RequestError: a name cannot be served.
    """
    ctx.require_model(body.model)
    options = ctx.traced(body.routing, options_per_question(body.routing, len(body.questions)))
    if body.routing is not NO_WISHES:
        ctx.require_options(body.model, options, places(body.routing, len(options)))
    text = render_input(body.input)
    return [
        Sample(text, question.to_question(), body.model, option, predict, ctx.scope)
        for question, option in zip(body.questions, options, strict=True)
    ]


def answerable(results: Sequence[Result]) -> list[Outcome | BadExpert]:
    """The results, if the request can be answered.

    What is wrong with the request fails it whole. An expert whose files turn out to be bad costs
    only its own questions, unless there are no others.

    Raises:
        Exception: the first failure, naming its question.
    """
    kept: list[Outcome | BadExpert] = []
    served = any(isinstance(r, Outcome) for r in results)
    for i, result in enumerate(results):
        if isinstance(result, Outcome) or (served and isinstance(result, BadExpert)):
            kept.append(result)
        else:
            raise located(result, f"questions[{i}]")
    return kept


def answer_json(question: Question, result: Outcome | BadExpert) -> dict[str, object]:
    """The answer in the client's shape."""
    if isinstance(result, BadExpert):
        return {"type": "refusal", "name": question.name, "reason": result.message}
    answer = result.answer
    assert answer is not None
    if answer.refusal is not None:
        return {"type": "refusal", "name": question.name, "reason": answer.refusal}
    if question.type == "choice":
        return _choice_json(question, answer)
    if question.type == "score":
        return _score_json(question, answer)
    (probability,) = answer.probabilities
    return {"type": "predicate", "name": question.name, "probability": probability}


def _choice_json(question: Question, answer: Answer) -> dict[str, object]:
    top = max(answer.probabilities)
    shares = zip(answer.choices, answer.probabilities, strict=True)
    return {
        "type": "choice",
        "name": question.name,
        "choice": answer.choices[answer.probabilities.index(top)].value,
        "confidence": top,
        "probabilities": [{"value": c.value, "probability": p} for c, p in shares],
    }


def _score_json(question: Question, answer: Answer) -> dict[str, object]:
    shares = list(enumerate(zip(answer.choices, answer.probabilities, strict=True)))
    return {
        "type": "score",
        "name": question.name,
        "score": sum(i * p for i, (_, p) in shares),
        "confidence": max(answer.probabilities),
        "probabilities": [{"value": i, "label": c.value, "probability": p} for i, (c, p) in shares],
    }


def usage_json(results: Sequence[object]) -> dict[str, object]:
    """Tokens read for all questions."""
    tokens = sum(r.tokens for r in results if isinstance(r, Outcome))
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens,
    }


def traces_json(
    samples: Sequence[Sample], results: Sequence[object]
) -> list[dict[str, object] | None]:
    """A trace per question, at the level each asked for."""
    return [
        trace_json(result, sample.options.trace) if isinstance(result, Outcome) else None
        for sample, result in zip(samples, results, strict=True)
    ]
