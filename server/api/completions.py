"""`POST /v1/completions`: text that continues a prompt, in OpenAI's shape.

Each prompt of a request is routed on its own. `echo`, `suffix` and `best_of` are not served.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from experts.backbones import LanguageModel
from server.api.context import Answered, Context, context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute
from server.api.logprobs import CompletionLogprobs, Places, completion_logprobs
from server.api.telling import Shape, Start, answer, require_whole, whole
from server.api.wire.base import Text as NotBlank
from server.api.wire.base import shape_of
from server.api.wire.sampling import SamplingRequest
from server.api.writing import (
    Asked,
    Begun,
    Length,
    RoutedText,
    WritingUsage,
    begin,
    writer_of,
)
from server.engine.generation.messages import Finish, Piece, Written
from server.engine.queue import Submit
from server.errors import RequestError

router = APIRouter(prefix="/v1", tags=["generation"], route_class=LeanRoute)
MAX_PROMPTS = 128
DEFAULT_TOKENS = 16
"""What OpenAI writes where a request does not say."""
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


def _tag(value: object) -> str | None:
    if isinstance(value, list) and value:
        inner = {int: "<tokens>", str: "<texts>", list: "<token lists>"}
        return inner.get(type(value[0]))
    return shape_of((str, "<text>"))(value)


Prompts = Annotated[
    Annotated[NotBlank, Tag("<text>")]
    | Annotated[list[NotBlank], Field(min_length=1, max_length=MAX_PROMPTS), Tag("<texts>")]
    | Annotated[TokenIds, Tag("<tokens>")]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS), Tag("<token lists>")],
    Discriminator(
        _tag,
        custom_error_type="prompt",
        custom_error_message="must be a string, token ids, or a list of either",
    ),
]


class CompletionRequest(SamplingRequest):
    """Prompts to continue. Every field that is not listed here is an error."""

    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Annotated[None, BeforeValidator(lambda v: v or None)] = None


class CompletionChoice(BaseModel):
    """One text."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None


class CompletionRouting(BaseModel):
    """How each prompt was routed, in order."""

    prompts: list[RoutedText]


class CompletionResponse(BaseModel):
    """Texts in the order of the prompts, `n` of each."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: WritingUsage
    routing: CompletionRouting


@router.post("/completions", response_model=CompletionResponse, responses=ERROR_RESPONSES)
async def create_completion(body: CompletionRequest, request: Request) -> Response:
    """Continue prompts, each by the experts that are routed for it."""
    ctx = context(request)
    return await answer(ctx, request, body, *_plan(ctx, body))


async def complete(ctx: Context, body: CompletionRequest, deadline: float | None) -> Answered:
    """The answer to a request, not over HTTP.

    Raises:
        ServerError, ExpertError: the request cannot be answered.
    """
    require_whole(body)
    return await whole(ctx, *_plan(ctx, body), deadline)


def _plan(ctx: Context, body: CompletionRequest) -> tuple[Shape, Start]:
    """How the response tells of it, and what begins to write."""
    backbone = writer_of(ctx)
    asked = _asked(backbone, body)

    async def start(submit: Submit, deadline: float | None) -> Begun:
        length = Length(body.max_tokens, DEFAULT_TOKENS, "max_tokens")
        return await begin(ctx, submit, body, asked, length, body.logprobs, deadline)

    return _shape(backbone, body), start


def _asked(backbone: LanguageModel, body: CompletionRequest) -> list[Asked]:
    """The prompts as tokens, and as the text that routing reads."""
    said = body.prompt
    if isinstance(said, str):
        said = [said]
    elif isinstance(said[0], int):
        said = [said]  # type: ignore[list-item]
    many = len(said) > 1
    asked: list[Asked] = []
    for i, prompt in enumerate(said):
        param = f"prompt[{i}]" if many else "prompt"
        if isinstance(prompt, str):
            asked.append(Asked(backbone.tokens([prompt])[0], prompt, param=param))
        else:
            tokens: list[int] = prompt  # type: ignore[assignment]
            if odd := [id for id in tokens if id >= backbone.vocabulary]:
                raise RequestError(f"{odd[0]} is no token of {backbone.id!r}.", param=param)
            asked.append(Asked(tokens, backbone.text(tokens), param=param))
    return asked


def _shape(backbone: LanguageModel, body: CompletionRequest) -> Shape:
    head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion",
            "created": int(time.time()), "model": body.model}  # fmt: skip
    places: dict[int, Places] = {}

    def choice(
        index: int, text: str, tokens: Sequence[Written], finish: Finish | None
    ) -> dict[str, object]:
        told = None
        if body.logprobs is not None:
            told = completion_logprobs(backbone, tokens, places.setdefault(index, Places()))
        return {"index": index, "text": text, "logprobs": told, "finish_reason": finish}

    def routing(told: list[dict[str, object]]) -> dict[str, object]:
        return {"prompts": told}

    def complete_body(begun: Begun) -> dict[str, object]:
        choices = [choice(i, t.text, t.tokens, t.finish) for i, t in enumerate(begun.texts)]
        return {**head, "choices": choices, "usage": begun.usage}

    def of_piece(piece: Piece) -> Mapping[str, object]:
        return choice(piece.index, piece.text, piece.tokens, piece.finish)

    return Shape(complete_body, lambda _: [], lambda choices: {**head, "choices": choices},
                 of_piece, routing)  # fmt: skip
