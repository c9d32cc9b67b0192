"""`POST /v1/chat/completions`: the next turn of a conversation, in OpenAI's shape.

The tokenizer's chat template makes the prompt. Routing reads the last user message as the input,
and what system and developer messages say as the caller's instruction. Tools, images, audio and
response formats are not served.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from experts.backbones import LanguageModel
from experts.errors import ChatError
from server.api.context import Answered, Context, context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute
from server.api.logprobs import ChatLogprobs, chat_logprobs
from server.api.telling import Shape, Start, answer, require_whole, whole
from server.api.wire.base import Nullable, Wire, invalid, shape_of
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
from server.errors import located

router = APIRouter(prefix="/v1", tags=["generation"], route_class=LeanRoute)
MAX_MESSAGES, MAX_PARTS = 1024, 1024
DEFAULT_TOKENS = 1024
"""Room is taken for all tokens that may be written: not for a whole context unless it is wanted."""
INSTRUCTING = ("system", "developer")


class TextPart(Wire):
    """A piece of text."""

    type: Literal["text"]
    text: str


Content = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS), Tag("<parts>")],
    Discriminator(
        shape_of((str, "<text>"), (list, "<parts>")),
        custom_error_type="text_or_parts",
        custom_error_message="must be a string or a list of text parts",
    ),
]


Nothing = Annotated[tuple[object, ...], Field(max_length=0)]
"""A list that answers have, and that may come back empty."""


class Message(Nullable):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: str | None = Field(None, description="For chat templates that tell who speaks.")
    annotations: Nothing = ()
    tool_calls: Nothing = ()

    @property
    def text(self) -> str:
        """What is said; each part begins a line."""
        content = self.content
        return content if isinstance(content, str) else "\n".join(part.text for part in content)

    @property
    def turn(self) -> dict[str, str]:
        """What a chat template reads."""
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": self.text, **named}


class TextFormat(Wire):
    """The one response format there is."""

    type: Literal["text"]


class ChatRequest(SamplingRequest):
    """A conversation to go on with. Every field that is not listed here is an error."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description=f"Default: {DEFAULT_TOKENS}, or fewer where the context ends."
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="The former name of `max_completion_tokens`."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: TextFormat | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise invalid("max_tokens is the former name of max_completion_tokens; send one")
        if self.top_logprobs is not None and not self.logprobs:
            raise invalid("top_logprobs needs logprobs: true")
        return self

    @property
    def length(self) -> Length:
        """How long the answer may be."""
        if self.max_tokens is not None:
            return Length(self.max_tokens, DEFAULT_TOKENS, "max_tokens")
        return Length(self.max_completion_tokens, DEFAULT_TOKENS, "max_completion_tokens")


class Answer(BaseModel):
    """What the assistant says."""

    role: Literal["assistant"]
    content: str


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: Answer
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatResponse(BaseModel):
    """`n` answers."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: WritingUsage
    routing: RoutedText


@router.post("/chat/completions", response_model=ChatResponse, responses=ERROR_RESPONSES)
async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
    """Go on with a conversation, by the experts that are routed for it."""
    ctx = context(request)
    return await answer(ctx, request, body, *_plan(ctx, body))


async def converse(ctx: Context, body: ChatRequest, deadline: float | None) -> Answered:
    """The answer to a request, not over HTTP.

    Raises:
        ServerError, ExpertError: the request cannot be answered.
    """
    require_whole(body)
    return await whole(ctx, *_plan(ctx, body), deadline)


def _plan(ctx: Context, body: ChatRequest) -> tuple[Shape, Start]:
    """How the response tells of it, and what begins to write."""
    backbone = writer_of(ctx)
    asked = _asked(backbone, body.messages)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None

    async def start(submit: Submit, deadline: float | None) -> Begun:
        return await begin(ctx, submit, body, [asked], body.length, logprobs, deadline)

    return _shape(backbone, body), start


def _asked(backbone: LanguageModel, messages: Sequence[Message]) -> Asked:
    """The prompt as tokens, and what routing reads of it."""
    try:
        tokens = backbone.chat([message.turn for message in messages])
    except ChatError as error:
        raise located(error, "messages") from None
    users = [m.text for m in messages if m.role == "user" and m.text.strip()]
    told = "\n".join(m.text for m in messages if m.role in INSTRUCTING and m.text.strip())
    text = users[-1] if users else messages[-1].text
    return Asked(tokens, text, told or None, "messages")


def _shape(backbone: LanguageModel, body: ChatRequest) -> Shape:
    name, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def head(object: str) -> dict[str, object]:
        return {"id": name, "object": object, "created": created, "model": body.model}

    def logprobs(tokens: Sequence[Written]) -> object:
        return chat_logprobs(backbone, tokens) if body.logprobs else None

    def chunk(choices: Sequence[Mapping[str, object]]) -> dict[str, object]:
        return {**head("chat.completion.chunk"), "choices": choices}

    def delta(
        index: int, said: object, tokens: Sequence[Written], finish: Finish | None
    ) -> dict[str, object]:
        return {"index": index, "delta": said, "logprobs": logprobs(tokens),
                "finish_reason": finish}  # fmt: skip

    def opening(begun: Begun) -> list[dict[str, object]]:
        said = {"role": "assistant", "content": ""}
        return [chunk([delta(i, said, (), None)]) for i in range(begun.count)]

    def choice(piece: Piece) -> Mapping[str, object]:
        said = {"content": piece.text} if piece.text else {}
        return delta(piece.index, said, piece.tokens, piece.finish)

    def routing(told: list[dict[str, object]]) -> dict[str, object]:
        return told[0]

    def complete_body(begun: Begun) -> dict[str, object]:
        choices = [
            {"index": i, "message": {"role": "assistant", "content": t.text},
             "logprobs": logprobs(t.tokens), "finish_reason": t.finish}
            for i, t in enumerate(begun.texts)
        ]  # fmt: skip
        return {**head("chat.completion"), "choices": choices, "usage": begun.usage}

    return Shape(complete_body, opening, chunk, choice, routing)
