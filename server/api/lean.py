"""Routes with a JSON body, read without detours.

FastAPI still documents body and response from the handler's signature. At run time the bytes go
straight into the wire model, and the handler writes its own bytes: on a busy server the general
path costs more than a small backbone's share of the work. Also ends a request whose client left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import ClientDisconnect

from server.api.context import Answered, app_context, context
from server.errors import BodyTooLarge, TooSlow, UnreadEncoding

CLIENT_LEFT = 499
"""The status in logs and metrics of a request whose client left; nobody reads it."""
PLAIN = "identity"
"""The encoding that leaves a body as it is."""
PATIENCE = 0.05
"""Seconds before a waiting request starts to listen for its client's leaving: most end sooner."""


class LeanRoute(APIRoute):
    """A route whose handler is `handler(body: Model, request: Request, ...) -> Response`.

    What else the handler takes are parts of the path, as strings.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler with its body read, checked, and its client watched."""
        endpoint: Callable[..., Awaitable[Response]] = self.endpoint
        model: type[BaseModel] | None = get_type_hints(endpoint).get("body")
        if model is None:
            return super().get_route_handler()
        parse = model.model_validate_json

        async def handle(request: Request) -> Response:
            try:
                ctx = app_context(request)
                async with in_time(ctx.bounds.client_seconds):
                    read = await read_body(request, ctx.bounds.body_bytes)
                body = parse(read)
            except ClientDisconnect:
                return Response(status_code=CLIENT_LEFT)
            return await while_client_stays(request, endpoint(body, request, **request.path_params))

        return handle


@asynccontextmanager
async def in_time(seconds: float | None) -> AsyncGenerator[None]:
    """Bound how long a client may take to send what is read inside.

    Raises:
        TooSlow: it took longer.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise TooSlow(f"The body was not complete after {seconds:g} seconds.") from None


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        UnreadEncoding: it is compressed.
        BodyTooLarge: it is, or says it is, longer than `limit` bytes.
    """
    encoding = request.headers.get("content-encoding", PLAIN)
    if encoding.lower() != PLAIN:
        raise UnreadEncoding("The body has a Content-Encoding; send it as plain JSON, without one.")
    told = request.headers.get("content-length", "")
    size = int(told) if told.isdecimal() else 0
    chunks: list[bytes] = []
    if size <= limit:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                break
            chunks.append(chunk)
    if size > limit:
        raise BodyTooLarge(f"The body has {size} bytes or more, and the limit is {limit}.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def while_client_stays(request: Request, work: Awaitable[Response]) -> Response:
    """Await `work`; cancel it when the client closes the connection."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    watchers: list[asyncio.Task[None]] = []
    left = False

    async def watch() -> None:
        nonlocal left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left = True
        task.cancel()

    timer = loop.call_later(PATIENCE, lambda: watchers.append(loop.create_task(watch())))
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
        return Response(status_code=CLIENT_LEFT)
    finally:
        timer.cancel()
        for watcher in watchers:
            watcher.cancel()


def respond(request: Request, answered: Answered) -> Response:
    """The response to a request, once its log line is told what was answered."""
    context(request).note(request, answered)
    return json_response(answered.body)


def json_response(content: object, status: int = 200) -> Response:
    """`content` as JSON; models and dataclasses inside it are written as they are."""
    return Response(to_json(content), status, media_type="application/json")
