"""What `/v1/completions` and `/v1/chat/completions` share: route prompts, and begin to write.

A prompt is routed as a question would be; then the engine writes with the selection. The routing
reads a text of the request (`Asked.text`), the model the prompt's tokens. How a response tells of
it is in `server.api.telling`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pydantic import BaseModel

from experts.backbones import LanguageModel
from routers.types import Selection
from server.api.context import Context
from server.api.traces import TraceBody, trace_json
from server.api.wire.sampling import SamplingRequest
from server.engine.generation.messages import Finish, Piece, Prompt, Sampling, Written
from server.engine.generation.request import Ticket
from server.engine.messages import Outcome, RoutingOptions, Sample, Stage, Trace
from server.engine.queue import Result, Submit
from server.errors import ContextExceeded, RequestError, TooManyTokens, Unavailable, located


class RoutedText(BaseModel):
    """Who wrote a prompt's texts, and the trace that led to them."""

    selection: Selection
    trace: TraceBody | None


class PromptDetails(BaseModel):
    """What became of the prompts' tokens."""

    cached_tokens: int
    """Not read again, since other prompts to the same experts began with them."""


class WritingUsage(BaseModel):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


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


@dataclass(frozen=True)
class Length:
    """How many tokens a text may have.

    Attributes:
        wanted: what the caller says. default: else so many, or fewer where the context ends. param:
            the field that says it.
    """

    wanted: int | None
    default: int
    param: str


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
    """Prompts on their way: how each was routed, the ticket of all, and for whom they are.

    `begun` is when, on the clock of `time.perf_counter`.
    """

    samples: Sequence[Sample]
    outcomes: Sequence[Outcome]
    prompts: Sequence[Prompt]
    ticket: Ticket
    submit: Submit
    texts: Sequence[Text]
    ctx: Context
    begun: float = field(default_factory=time.perf_counter)

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

        A full trace tells of the tokens of the prompt and of its first text, and what they chose,
        unless the server is too busy to look.
        """
        ended = time.perf_counter()
        told: list[dict[str, object]] = []
        for sample, outcome, prompt in zip(self.samples, self.outcomes, self.prompts, strict=True):
            if sample.options.listens:
                wrote = Stage("generate", self.begun, ended)
                trace = await self._heard(sample, prompt, outcome.trace)
                outcome = replace(outcome, trace=trace, stages=(*outcome.stages, wrote))
            told.append({
                "selection": self.ctx.told(outcome.trace.selection),
                "trace": trace_json(outcome, sample.options.trace),
            })  # fmt: skip
        return told

    async def _heard(self, sample: Sample, prompt: Prompt, trace: Trace) -> Trace:
        """The trace with what is told of tokens: what they are, and what they chose."""
        written = tuple(t.token for t in self.texts[prompt.first].tokens)
        backbone = writer_of(self.ctx)
        spelled = backbone.spelling.read([*prompt.tokens, *backbone.start, *written])
        trace = replace(trace, spelled=spelled, written=len(written))
        if prompt.selection.mode != "token":
            return trace
        level = sample.options.trace
        options = RoutingOptions(selection=prompt.selection, trace=level, truncate=True)
        again = replace(sample, options=options, predict=True, record=(prompt.tokens, written))
        try:
            (found,) = await self.submit([again])
        except Unavailable:  # what is written is worth more than how
            return trace
        return replace(trace, tokens=found.trace.tokens) if isinstance(found, Outcome) else trace

    @property
    def written(self) -> int:
        """Tokens of all texts by now."""
        return sum(len(text.tokens) for text in self.texts)

    @property
    def usage(self) -> dict[str, object]:
        """A `WritingUsage` of what is written by now."""
        return {"prompt_tokens": self.read, "completion_tokens": self.written,
                "total_tokens": self.read + self.written,
                "prompt_tokens_details": {"cached_tokens": self.ticket.reused}}  # fmt: skip


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


def room_for(backbone: LanguageModel, asked: Asked, length: Length) -> int:
    """How many tokens may be written after a prompt.

    Raises:
        ContextExceeded: the prompt, or the prompt and what is wanted, are longer than the context.
    """
    wanted = length.wanted
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
            param=length.param,
        )
    return min(left, length.default) if wanted is None else wanted


async def begin(
    ctx: Context, submit: Submit, body: SamplingRequest, asked: Sequence[Asked],
    length: Length, logprobs: int | None, deadline: float | None,
) -> Begun:  # fmt: skip
    """Route prompts and begin to write.

    Raises:
        ServerError, ExpertError: a prompt cannot be answered.
    """
    since, backbone, service = time.monotonic(), writer_of(ctx), ctx.service
    ctx.require_model(body.model)
    (options,) = ctx.traced(body.routing, [body.routing.to_options()], len(asked))
    if options.truncate:
        raise RequestError("Prompts are not cut; send a shorter one.", param="routing.truncate")
    ctx.require_options(body.model, [options])
    _require_tokens(backbone, body)
    rules = [body.sampling(room_for(backbone, a, length), logprobs) for a in asked]
    _require_few(ctx.bounds.tokens, asked, rules, body.n or 1)
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
        Prompt(
            tuple(a.tokens),
            outcome.trace.selection,
            rule,
            n,
            i * n,
            ctx.scope,
            listens=options.trace == "tokens" and outcome.trace.selection.mode == "token",
        )
        for i, (a, outcome, rule) in enumerate(zip(asked, outcomes, rules, strict=True))
    ]
    assert service.writing is not None
    ticket = service.writing.begin(prompts, deadline, since)
    texts = [Text() for _ in range(n * len(asked))]
    return Begun(samples, outcomes, prompts, ticket, submit, texts, ctx)


def _require_few(
    limit: int | None, asked: Sequence[Asked], rules: Sequence[Sampling], n: int
) -> None:
    """Refuse what takes more tokens than one request may have: its prompts and all its texts."""
    if limit is None:
        return
    tokens = sum(len(a.tokens) + n * r.max_tokens for a, r in zip(asked, rules, strict=True))
    if tokens > limit:
        raise TooManyTokens(
            f"Prompts and texts may have {tokens} tokens together, and the limit is {limit}: send "
            "fewer prompts, or ask for fewer or shorter texts."
        )


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
