"""One line of a batch: a request in OpenAI's batch shape in, its answer in OpenAI's out.

The body is answered by the functions that answer it over HTTP, so the two cannot differ. Knows
nothing of files, and nothing of which lines were answered before.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, JsonValue, ValidationError
from pydantic_core import from_json, to_json

from server.api import chat, completions, decisions, embeddings, faults, route
from server.api.context import Answered, Context
from server.api.wire.base import Text, Wire
from server.errors import INTERNAL, BadLine, Unavailable, row_of

log = logging.getLogger("sailplane.batch")
OK = 200
READ = ("input", "prompt", "messages")
"""What a body is read from, by one of these names."""
COUNTED = ("questions", "input", "prompt")
"""What may hold several samples: the first of these that is there."""


@dataclass(frozen=True)
class Endpoint:
    """What answers the requests of one address: `model` is their body."""

    model: type[Wire]
    answer: Callable[[Context, Any, float | None], Awaitable[Answered]]


ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/decisions": Endpoint(decisions.DecisionRequest, decisions.decide),
    "/v1/embeddings": Endpoint(embeddings.EmbeddingRequest, embeddings.embed),
    "/v1/route": Endpoint(decisions.DecisionRequest, route.explain),
    "/v1/completions": Endpoint(completions.CompletionRequest, completions.complete),
    "/v1/chat/completions": Endpoint(chat.ChatRequest, chat.converse),
}


class Line(Wire):
    """A request. `body` is what would be sent to `url`."""

    custom_id: Text = Field(max_length=512)
    method: Literal["POST"]
    url: Literal[
        "/v1/decisions", "/v1/embeddings", "/v1/route", "/v1/completions", "/v1/chat/completions"
    ]
    body: dict[str, JsonValue]

    @property
    def length(self) -> int:
        """About how long its input is: lines of like length share a batch well."""
        text = next((self.body[name] for name in READ if name in self.body), None)
        return len(text) if isinstance(text, str) else len(to_json(text))

    @property
    def samples(self) -> int:
        """About how many samples it asks for."""
        asked = next((self.body[name] for name in COUNTED if name in self.body), None)
        n = self.body.get("n")
        texts = n if isinstance(n, int) else 1
        tokens = isinstance(asked, list) and asked and isinstance(asked[0], int)
        return max(1, texts * len(asked) if isinstance(asked, list) and not tokens else texts)


@dataclass(frozen=True)
class Reply:
    """A line answered: `written` without its line break, and how many samples it took."""

    written: bytes
    status: int
    code: str | None = None
    samples: int = 0


def read_line(number: int, data: bytes, limit: int) -> Line:
    """The request on a line.

    Args:
        number: of the line, from 1. limit: bytes it may have.

    Raises:
        BadLine: it is none, with the reason.
    """
    where = f"Line {number}"
    if len(data) > limit:
        raise BadLine(f"{where} has more than {limit} bytes; --body-limit allows more.")
    try:
        return Line.model_validate_json(data)
    except ValidationError as error:
        told = faults.from_validation(error)
        shape = "expected custom_id, method 'POST', url and body"
        reason = f"{where} is no request: {told.message} ({shape})"
        raise BadLine(reason, custom_id_of(data)) from None


def custom_id_of(data: bytes) -> str | None:
    """The `custom_id` of a line of either file, if it can be read."""
    try:
        found = from_json(data)
    except ValueError:
        return None
    named = found.get("custom_id") if isinstance(found, dict) else None
    return named if isinstance(named, str) else None


async def answer(ctx: Context, line: Line, id: str) -> Reply:
    """The answer to a request; whatever goes wrong with it is its answer too.

    Raises:
        Unavailable: the engine has stopped, so this says nothing of the request.
    """
    endpoint, request_id = ENDPOINTS[line.url], os.urandom(12).hex()
    try:
        sent = to_json(line.body, inf_nan_mode="constants")  # else NaN would pass as null
        body = endpoint.model.model_validate_json(sent)
        answered = await endpoint.answer(ctx, body, None)
    except ValidationError as error:
        return _refused(line.custom_id, id, request_id, faults.from_validation(error))
    except Unavailable:
        raise
    except Exception as error:
        if row_of(error) is INTERNAL:
            log.exception("request %s failed", request_id)
        return _refused(line.custom_id, id, request_id, error)
    response = {"status_code": OK, "request_id": request_id, "body": answered.body}
    return Reply(_written(id, line.custom_id, response), OK, None, len(answered.samples))


def refuse(bad: BadLine, id: str) -> Reply:
    """The answer to a line that is no request: as `error` too, since it never became one."""
    told = {"code": row_of(bad).code, "message": bad.message}
    return _refused(bad.custom_id, id, os.urandom(12).hex(), bad, told)


def _refused(
    custom_id: str | None, id: str, request_id: str, error: Exception, told: object = None
) -> Reply:
    """A line with the status and the body that the error has over HTTP."""
    row = row_of(error)
    response = {"status_code": row.status, "request_id": request_id, "body": faults.explain(error)}
    return Reply(_written(id, custom_id, response, told), row.status, row.code)


def _written(id: str, custom_id: str | None, response: object, error: object = None) -> bytes:
    said = {"id": id, "custom_id": custom_id, "response": response, "error": error}
    return to_json(said, serialize_unknown=True)
