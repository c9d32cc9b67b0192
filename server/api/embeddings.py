"""`POST /v1/embeddings`: adapted embeddings, in OpenAI's shape.

All inputs of one request share one selection, because vectors of different selections are not
comparable. With `model: auto` the first input is routed and its selection serves them all; the
response returns it as `routing.selection`, and a later request that must be comparable sends it
back. With the backbone's id the vectors are the bare backbone's.
"""

from __future__ import annotations

import base64
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, Discriminator, Field, Tag

from experts.errors import BadExpert, UnknownExpert
from routers.types import Selection
from server.api.context import AUTO, Answered, Context, context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, respond
from server.api.traces import TraceBody, trace_json
from server.api.wire.base import Text, Wire, shape_of, unsupported
from server.api.wire.routing import DEFAULT_OPTIONS, TimedRouting
from server.engine.messages import Outcome, RoutingOptions, Sample, Shared
from server.engine.queue import Result, Submit
from server.errors import RequestError, located

router = APIRouter(prefix="/v1", tags=["embeddings"], route_class=LeanRoute)
MAX_INPUTS = 2048
RETRIES = 2
"""How often inputs are routed again before a library that loses the chosen experts is an error."""


def _no_tokens(value: object) -> object:
    if isinstance(value, list) and value and isinstance(value[0], int | list):
        raise unsupported("token arrays are not supported; send text")
    return value


Inputs = Annotated[
    Annotated[Text, Tag("<text>")]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS), Tag("<list>")],
    Discriminator(
        shape_of((str, "<text>"), (list, "<list>")),
        custom_error_type="text_or_list",
        custom_error_message="must be a string or a list of strings",
    ),
    BeforeValidator(_no_tokens),
    AfterValidator(lambda value: [value] if isinstance(value, str) else value),
]
NO_WISHES = TimedRouting()


class EmbeddingRequest(Wire):
    """Texts to embed. `user` is accepted because it cannot change a vector."""

    model: Text = Field(description="`auto`, an expert's id, or the backbone's id.")
    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="The backbone's width, or absent."
    )
    routing: TimedRouting = NO_WISHES
    user: str | None = None


class EmbeddingBody(BaseModel):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class SharedRouting(BaseModel):
    """The one selection behind all vectors of the response, and the trace that led to it."""

    selection: Selection
    trace: TraceBody | None


class EmbeddingResponse(BaseModel):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    model: str
    data: list[EmbeddingBody]
    usage: EmbeddingUsage
    routing: SharedRouting


@router.post("/embeddings", response_model=EmbeddingResponse, responses=ERROR_RESPONSES)
async def create_embeddings(body: EmbeddingRequest, request: Request) -> Response:
    """Embed texts with one selection of experts for all of them.

    Vectors of different selections are not comparable: send `routing.selection` of an earlier
    response to get more of the same.
    """
    ctx = context(request)
    return respond(request, await embed(ctx, body, ctx.deadline(body.routing.timeout_ms)))


async def embed(ctx: Context, body: EmbeddingRequest, deadline: float | None) -> Answered:
    """The vectors of a request, over HTTP or not. See `server.api.decisions.decide`."""
    wanted = _options(ctx, body)
    with ctx.service.admitted() as submit:
        tried = await _try(ctx, body, wanted, submit, deadline)
        for _ in range(RETRIES):
            if not tried.lost:
                break
            tried = await _try(ctx, body, wanted, submit, deadline)
    done = outcomes(tried.results)
    tokens, first = sum(outcome.tokens for outcome in done), done[0]
    told: dict[str, object] = {
        "object": "list",
        "model": body.model,
        "data": _vectors(done, body.encoding_format),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "routing": {
            "selection": ctx.told(first.trace.selection),
            "trace": trace_json(first, wanted.trace),
        },
    }
    return Answered(told, tried.samples, done)


@dataclass(frozen=True)
class _Tried:
    """What came of all inputs, and the selection they share, where one had to be decided."""

    samples: Sequence[Sample]
    results: Sequence[Result]
    shared: Shared | None

    @property
    def lost(self) -> bool:
        """Whether an expert that was chosen for the caller has gone, or turned out bad, since."""
        decided = self.shared is not None and self.shared.selection is not None
        return decided and any(isinstance(r, UnknownExpert | BadExpert) for r in self.results)


async def _try(
    ctx: Context, body: EmbeddingRequest, wanted: RoutingOptions, submit: Submit,
    deadline: float | None,
) -> _Tried:  # fmt: skip
    """Embed all inputs by one selection: that of the first, where they could differ."""
    shared = Shared() if _could_differ(body, wanted) else None
    samples = _samples(ctx, body, wanted, shared)
    return _Tried(samples, await submit(samples, deadline=deadline), shared)


def _samples(
    ctx: Context, body: EmbeddingRequest, options: RoutingOptions, shared: Shared | None
) -> list[Sample]:
    """One sample per input. There is one trace, and it is the first input's."""
    quiet = replace(options, trace="none")
    return [
        Sample(text, None, body.model, quiet if i else options, scope=ctx.scope, shared=shared)
        for i, text in enumerate(body.input)
    ]


def outcomes(results: Sequence[Result]) -> list[Outcome]:
    """The results, if none failed.

    Raises:
        Exception: the first failure, naming its input.
    """
    for i, result in enumerate(results):
        if not isinstance(result, Outcome):
            raise located(result, f"input[{i}]")
    return [result for result in results if isinstance(result, Outcome)]


def _options(ctx: Context, body: EmbeddingRequest) -> RoutingOptions:
    ctx.require_model(body.model)
    width = ctx.service.engine.backbone.width
    if body.dimensions not in (None, width):
        raise RequestError(f"dimensions must be {width} or absent.", param="dimensions")
    asked = DEFAULT_OPTIONS if body.routing is NO_WISHES else body.routing.to_options()
    (options,) = ctx.traced(body.routing, [asked])
    if body.routing is not NO_WISHES:
        ctx.require_options(body.model, [options])
    return options


def _could_differ(body: EmbeddingRequest, options: RoutingOptions) -> bool:
    """Whether the inputs could be given different selections if each were routed."""
    pinned = options.selection is not None or options.experts is not None
    return body.model == AUTO and not pinned and len(body.input) > 1


def _vectors(done: Sequence[Outcome], form: str) -> list[dict[str, object]]:
    vectors = [outcome.answer.embedding or () for outcome in done if outcome.answer is not None]
    return [
        {
            "object": "embedding",
            "index": i,
            "embedding": _base64(vector) if form == "base64" else vector,
        }
        for i, vector in enumerate(vectors)
    ]


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(array("f", vector).tobytes()).decode()
