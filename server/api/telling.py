"""How a response tells of text that is being written: whole, or as server-sent events.

Knows nothing of routing or of a route's fields; a `Shape` says those.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from pydantic_core import to_json

from server.api.context import Answered, Context
from server.api.faults import ERROR_CODE, explain
from server.api.lean import CLIENT_LEFT, respond
from server.api.wire.sampling import SamplingRequest
from server.api.writing import Begun
from server.engine.generation.messages import Piece
from server.engine.queue import Submit
from server.errors import INTERNAL, RequestError, row_of
from server.observability.requests import NOTES, WATCHED

log = logging.getLogger("sailplane.access")
DONE = b"data: [DONE]\n\n"
Start = Callable[[Submit, float | None], Awaitable[Begun]]
"""Begins to write, given `submit` and the deadline."""


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
    routing: Callable[[list[dict[str, object]]], dict[str, object]]


async def answer(
    ctx: Context, request: Request, body: SamplingRequest, shape: Shape, start: Start
) -> Response:
    """The response to a request for text, whole or as a stream."""
    deadline = ctx.writing_deadline(body.routing.timeout_ms)
    if not body.stream:
        return respond(
            request, await whole(ctx, shape, start, deadline, partial(_note_unfinished, request))
        )
    admitted = ctx.service.admitted()
    submit = admitted.__enter__()
    streams = False
    try:
        begun = await start(submit, deadline)
        ctx.note(request, Answered({}, begun.samples, begun.outcomes, read=begun.read))
        streams = True
        return EventStream(
            _events(request, begun, shape, body.includes_usage),
            lambda: admitted.__exit__(None, None, None),
        )
    finally:
        if not streams:
            admitted.__exit__(None, None, None)


async def whole(
    ctx: Context, shape: Shape, start: Start, deadline: float | None,
    unfinished: Callable[[Begun], object] = lambda _: None,
) -> Answered:  # fmt: skip
    """The answer to a request for text once all of it is written, over HTTP or not.

    Args:
        unfinished: told of what has begun and does not come to its end.

    Raises:
        ServerError, ExpertError: the request cannot be answered.
    """
    with ctx.service.admitted() as submit:
        begun = await start(submit, deadline)
        try:
            await write_all(begun)
            routing = shape.routing(await begun.routing())
        except BaseException:
            unfinished(begun)
            raise
        body = shape.whole(begun) | {"routing": routing}
        return Answered(body, begun.samples, begun.outcomes, begun.written, begun.read)


def _note_unfinished(request: Request, begun: Begun) -> None:
    """What was read and written in vain counts: a client that leaves early has used it all."""
    request.scope[NOTES] = {"tokens": begun.read, "written": begun.written}


def require_whole(body: SamplingRequest) -> None:
    """Refuse a stream where there is nobody to read it.

    Raises:
        RequestError: one is asked for.
    """
    if body.stream:
        raise RequestError("The answer is given whole; leave stream out.", param="stream")


async def _events(
    request: Request, begun: Begun, shape: Shape, usage: bool
) -> AsyncGenerator[bytes]:
    ended, left = 0, True
    try:
        for chunk in shape.opening(begun):
            yield _event(chunk)
        async with aclosing(begun.ticket.pieces()) as pieces:
            async for piece in pieces:
                begun.texts[piece.index].add(piece)
                ended += piece.finish is not None
                chunk = shape.chunk([shape.choice(piece)])
                routing = _wrote(piece)
                if ended == begun.count and not usage:
                    routing |= shape.routing(await begun.routing())
                if routing:
                    chunk["routing"] = routing
                yield _event(chunk)
        if usage:
            last = {"usage": begun.usage, "routing": shape.routing(await begun.routing())}
            yield _event(shape.chunk([]) | last)
        yield DONE
        left = False
    except Exception as error:  # the status has gone out: what is left is to say it in the stream
        request.scope[ERROR_CODE] = row_of(error).code
        if row_of(error) is INTERNAL:
            log.exception("a stream failed")
        yield _event(explain(error))
        left = False
    finally:
        begun.ticket.cancel()
        request.scope[NOTES]["written"] = begun.written
        if left:
            request.scope[WATCHED].status = CLIENT_LEFT


def _wrote(piece: Piece) -> dict[str, object]:
    """Who wrote each token of a piece, where that was asked for."""
    told = [token.experts for token in piece.tokens]
    return {"wrote": told} if any(told) else {}


def _event(body: object) -> bytes:
    return b"data: " + to_json(body) + b"\n\n"
