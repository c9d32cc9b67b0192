"""What `/v1/completions` and `/v1/chat/completions` share: route a prompt, write, and tell.

A prompt is routed as a question would be; then the engine writes with the selection. The routing
reads a text of the request (`Asked.text`), the model the prompt's tokens.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from pydantic_core import to_json

from experts.backbones import LanguageModel
from experts.errors import ExpertError
from routers.types import Selection
from server.api.context import Answered, Context
from server.api.faults import explain
from server.api.lean import respond
from server.api.traces import TraceBody, trace_json
from server.api.wire.sampling import SamplingRequest
from server.engine.generation.messages import Finish, Piece, Prompt, Written
from server.engine.generation.request import Ticket
from server.engine.messages import Outcome, RoutingOptions, Sample, TokenTrace
from server.engine.queue import Result, Submit
from server.errors import ContextExceeded, RequestError, ServerError, located

DONE = b"data: [DONE]\n\n"


class RoutedText(BaseModel):
    """Who wrote a prompt's texts, and the trace that led to them."""

    selection: Selection
    trace: TraceBody | None


class WritingUsage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class Asked:
    """One prompt of a request.

    Attributes:
        tokens: what the model reads. text: what routing reads. instruction: the caller's, if it
            stands in the messages. param: the field it came from.
    """

    tokens: Sequence[int]
    text: str
    instruction: str | None = None
    param: str = "prompt"


@dataclass
class Text:
    """One text as far as it is written."""

    text: str = ""
    tokens: list[Written] = field(default_factory=list)
    finish: Finish | None = None

    def add(self, piece: Piece) -> None:
        """Add what is new."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.finish = piece.finish


@dataclass(frozen=True, eq=False)
class Begun:
    """Prompts on their way: how each was routed, and the ticket of all."""

    samples: Sequence[Sample]
    outcomes: Sequence[Outcome]
    prompts: Sequence[Prompt]
    ticket: Ticket
    submit: Submit
    texts: Sequence[Text]

    @property
    def count(self) -> int:
        """How many texts are written."""
        return len(self.texts)

    @property
    def read(self) -> int:
        """Tokens of all prompts."""
        return sum(len(prompt.tokens) for prompt in self.prompts)

    async def routing(self) -> list[dict[str, object]]:
        """A `RoutedText` for each prompt, once its texts are written.

        A full trace tells what the tokens of the prompt and of its first text chose.
        """
        told: list[dict[str, object]] = []
        for sample, outcome, prompt in zip(self.samples, self.outcomes, self.prompts, strict=True):
            trace, selection = outcome.trace, outcome.trace.selection
            if sample.options.trace == "full" and selection.mode == "token":
                trace = replace(trace, tokens=await self._chosen(sample, prompt))
            told.append({"selection": selection, "trace": trace_json(trace, sample.options.trace)})
        return told

    async def _chosen(self, sample: Sample, prompt: Prompt) -> tuple[TokenTrace, ...]:
        written = tuple(t.token for t in self.texts[prompt.first].tokens)
        options = RoutingOptions(selection=prompt.selection, trace="full", truncate=True)
        again = replace(sample, options=options, predict=True, record=(prompt.tokens, written))
        (found,) = await self.submit([again])
        return found.trace.tokens if isinstance(found, Outcome) else ()

    @property
    def usage(self) -> dict[str, int]:
        """A `WritingUsage` of what is written by now."""
        written = sum(len(text.tokens) for text in self.texts)
        return {"prompt_tokens": self.read, "completion_tokens": written,
                "total_tokens": self.read + written}  # fmt: skip


def writer_of(ctx: Context) -> LanguageModel:
    """The backbone, if it writes.

    Raises:
        RequestError: it does not.
    """
    backbone = ctx.service.engine.backbone
    if not isinstance(backbone, LanguageModel):
        raise RequestError(
            f"The backbone {backbone.id!r} writes no text; it answers /v1/decisions and "
            "/v1/embeddings. Serve a causal or seq2seq backbone to write.",
            param="model",
        )
    return backbone


def room_for(backbone: LanguageModel, asked: Asked, wanted: int | None, param: str) -> int:
    """How many tokens may be written after a prompt.

    Raises:
        ContextExceeded: the prompt, or the prompt and what is wanted, are longer than the context.
    """
    read, context = len(asked.tokens), backbone.context
    left = context if backbone.anatomy.source else context - read
    if read > context or left < 1:
        raise ContextExceeded(
            f"The prompt has {read} tokens and the context of {backbone.id!r} is {context}.",
            param=asked.param,
        )
    if wanted is not None and wanted > left:
        raise ContextExceeded(
            f"The prompt has {read} tokens, {wanted} are to be written, and the context of "
            f"{backbone.id!r} is {context}: at most {left} can be.",
            param=param,
        )
    return left if wanted is None else wanted


async def begin(
    ctx: Context, submit: Submit, body: SamplingRequest, asked: Sequence[Asked],
    wanted: int | None, param: str, logprobs: int | None, deadline: float | None,
) -> Begun:  # fmt: skip
    """Route prompts and begin to write.

    Args:
        wanted: tokens a text may have; None is as many as the context holds. param: its field.

    Raises:
        ServerError, ExpertError: a prompt cannot be answered.
    """
    backbone, service = writer_of(ctx), ctx.service
    ctx.require_model(body.model)
    options = body.routing.to_options()
    if options.truncate:
        raise RequestError("Prompts are not cut; send a shorter one.", param="routing.truncate")
    ctx.require_options(body.model, [options])
    _require_tokens(backbone, body)
    rules = [body.sampling(room_for(backbone, a, wanted, param), logprobs) for a in asked]
    # Only what routing reads may be cut: an embedder often takes less than the model does.
    options = replace(options, truncate=True)
    samples = [
        Sample(a.text, None, body.model,
               replace(options, instruction=options.instruction or a.instruction),
               predict=False, scope=ctx.scope)
        for a in asked
    ]  # fmt: skip
    outcomes = _routed(await submit(samples, deadline=deadline), asked)
    n = body.n or 1
    prompts = [
        Prompt(tuple(a.tokens), outcome.trace.selection, rule, n, i * n)
        for i, (a, outcome, rule) in enumerate(zip(asked, outcomes, rules, strict=True))
    ]
    assert service.writing is not None
    ticket = service.writing.begin(prompts, deadline)
    texts = [Text() for _ in range(n * len(asked))]
    return Begun(samples, outcomes, prompts, ticket, submit, texts)


def _require_tokens(backbone: LanguageModel, body: SamplingRequest) -> None:
    ids = {"logit_bias": body.logit_bias or {}, "stop_token_ids": body.stop_token_ids or ()}
    for name, said in ids.items():
        if odd := [id for id in said if id >= backbone.vocabulary]:
            raise RequestError(
                f"{odd[0]} is no token: {backbone.id!r} has {backbone.vocabulary}.", param=name
            )


def _routed(results: Sequence[Result], asked: Sequence[Asked]) -> list[Outcome]:
    for a, result in zip(asked, results, strict=True):
        if not isinstance(result, Outcome):
            raise located(result, a.param)
    return [result for result in results if isinstance(result, Outcome)]


async def write_all(begun: Begun) -> None:
    """Wait until all texts of a request are complete.

    Raises:
        Exception: why one of them could not be written.
    """
    async with aclosing(begun.ticket.pieces()) as pieces:
        async for piece in pieces:
            begun.texts[piece.index].add(piece)


class EventStream(StreamingResponse):
    """Server-sent events; `end` is called when the last has gone out, or the client has left."""

    def __init__(self, events: AsyncGenerator[bytes], end: Callable[[], object]) -> None:
        super().__init__(events, media_type="text/event-stream",
                         headers={"Cache-Control": "no-cache"})  # fmt: skip
        self._events, self._end = events, end

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See `StreamingResponse`."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            self._end()


@dataclass(frozen=True)
class Shape:
    """How one route says things.

    Attributes:
        whole: the body of texts that are complete. opening: chunks before the first token.
            chunk: a chunk of these choices. choice: what is new of one text. routing: how the
            prompts were routed, from `Begun.routing`.
    """

    whole: Callable[[Begun], dict[str, object]]
    opening: Callable[[Begun], Sequence[Mapping[str, object]]]
    chunk: Callable[[Sequence[Mapping[str, object]]], dict[str, object]]
    choice: Callable[[Piece], Mapping[str, object]]
    routing: Callable[[list[dict[str, object]]], object]


async def answer(
    ctx: Context, request: Request, body: SamplingRequest, shape: Shape,
    start: Callable[[Submit, float | None], Any],
) -> Response:  # fmt: skip
    """The response to a request for text, whole or as a stream.

    Args:
        start: begins to write, given `submit` and the deadline.
    """
    deadline = ctx.writing_deadline(body.routing.timeout_ms)
    admitted = ctx.service.admitted()
    submit = admitted.__enter__()
    streams = False
    try:
        begun: Begun = await start(submit, deadline)
        answered = Answered({}, begun.samples, begun.outcomes)
        if body.stream:
            ctx.note(request, answered)
            streams = True
            return EventStream(
                _events(begun, shape, body.includes_usage),
                lambda: admitted.__exit__(None, None, None),
            )
        await write_all(begun)
        routing = shape.routing(await begun.routing())
        return respond(request, replace(answered, body=shape.whole(begun) | {"routing": routing}))
    finally:
        if not streams:
            admitted.__exit__(None, None, None)


async def _events(begun: Begun, shape: Shape, usage: bool) -> AsyncGenerator[bytes]:
    ended = 0
    try:
        for chunk in shape.opening(begun):
            yield _event(chunk)
        async with aclosing(begun.ticket.pieces()) as pieces:
            async for piece in pieces:
                begun.texts[piece.index].add(piece)
                ended += piece.finish is not None
                chunk = shape.chunk([shape.choice(piece)])
                if ended == begun.count and not usage:
                    chunk["routing"] = shape.routing(await begun.routing())
                yield _event(chunk)
        if usage:
            last = {"usage": begun.usage, "routing": shape.routing(await begun.routing())}
            yield _event(shape.chunk([]) | last)
        yield DONE
    except (ServerError, ExpertError) as error:
        yield _event(explain(error))
    finally:
        begun.ticket.cancel()


def _event(body: object) -> bytes:
    return b"data: " + to_json(body) + b"\n\n"
