"""Errors as HTTP responses, all in one shape.

`{"error": {"message", "type", "param", "code"}}`, with `details` where there are any. Which error
has which status and code is said in `server.errors.TABLE` and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from experts.errors import ExpertError
from server.errors import (
    INTERNAL,
    TABLE,
    BodyTooLarge,
    MalformedBody,
    NeverFits,
    RequestError,
    Row,
    ServerError,
    TooSlow,
    UnknownCaller,
    UnreadEncoding,
    UnsupportedInput,
    row_of,
)

ERROR_CODE = "sailplane.error"
"""Key of the ASGI scope under which the code of a request's error stands."""
MAX_FAULTS = 20
UNREAD = (BodyTooLarge, TooSlow, UnreadEncoding, UnknownCaller)
"""After these the connection closes: what is left of the body is of no use."""
HTTP_ROWS: Mapping[int, Row] = {
    404: Row(404, "not_found_error", "route_not_found"),
    405: Row(405, "invalid_request_error", "method_not_allowed"),
}


class ErrorDetail(BaseModel):
    """What went wrong: `param` is the path of the field at fault, if one is."""

    message: str
    type: str
    param: str | None
    code: str
    details: dict[str, object] | None = None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


def _codes(first: int) -> str:
    rows = sorted({(row.status, row.code) for row in TABLE.values() if row.status // 100 == first})
    return ", ".join(f"{code} ({status})" for status, code in rows)


ERROR_RESPONSES: dict[int | str, dict[str, object]] = {
    "4XX": {"model": ErrorBody, "description": f"The request must change. Codes: {_codes(4)}."},
    "5XX": {"model": ErrorBody, "description": f"Not now. Codes: {_codes(5)}."},
}
BESIDE_TEXT: dict[int | str, dict[str, object]] = {
    status: {
        "description": told["description"],
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}},
    }
    for status, told in ERROR_RESPONSES.items()
}
"""The same, for routes that answer with plain text where nothing is wrong."""


def error_json(
    row: Row, message: str, *, param: str | None = None, details: object = None
) -> dict[str, object]:
    """The body of an error."""
    error = {"message": message, "type": row.type, "param": param, "code": row.code}
    return {"error": {**error, "details": details} if details else error}


def explain(error: BaseException) -> dict[str, object]:
    """The body that tells of any error. Of an internal one it says only that it happened."""
    row = row_of(error)
    if row is INTERNAL:
        return error_json(row, "The server failed; its log has the reason under this request id.")
    return error_json(
        row,
        str(getattr(error, "message", error)),
        param=getattr(error, "param", None),
        details=dict(getattr(error, "details", {})),
    )


def render_error(error: BaseException) -> Response:
    """The response to any error."""
    row = row_of(error)
    return _response(row, explain(error), _headers(error, row.status))


def _headers(error: BaseException, status: int) -> dict[str, str]:
    told: dict[str, str] = {}
    if isinstance(error, NeverFits):
        told["X-Should-Retry"] = "false"  # OpenAI's clients heed it
    elif status in (429, 503):
        told["Retry-After"] = str(getattr(error, "retry_after", 1))
    if isinstance(error, UnknownCaller):
        told["WWW-Authenticate"] = "Bearer"
    if isinstance(error, UNREAD):
        told["Connection"] = "close"
    return told


def _response(row: Row, body: object, headers: Mapping[str, str] | None) -> Response:
    content = to_json(body, serialize_unknown=True)
    return Response(content, row.status, headers=headers, media_type="application/json")


def install(app: FastAPI, routes: Sequence[APIRoute]) -> None:
    """Make `app` answer every error in the one shape.

    Args:
        routes: all that the app has, so that 405 can say what a path allows.
    """

    def note(request: Request, error: BaseException) -> None:
        request.scope[ERROR_CODE] = row_of(error).code

    async def known(request: Request, error: Exception) -> Response:
        if row_of(error) is INTERNAL:
            raise error  # the outermost layer logs it and answers
        note(request, error)
        return render_error(error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, ValidationError)
        return await known(request, from_validation(error))

    async def odd(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [{**fault, "loc": fault["loc"][1:]} for fault in error.errors()]  # "query" before
        return await known(request, _complaint(faults))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        row = HTTP_ROWS.get(error.status_code, Row(error.status_code, "server_error", "http_error"))
        request.scope[ERROR_CODE] = row.code
        message = f"{error.detail}: {request.method} {request.url.path}"
        headers = dict(error.headers or {})
        if row.status == 405 and (allowed := _allowed(request.url.path, routes)):
            headers["Allow"] = ", ".join(sorted(allowed))  # the router names one route's alone
        return _response(row, error_json(row, message), headers)

    app.add_exception_handler(ServerError, known)
    app.add_exception_handler(ExpertError, known)
    app.add_exception_handler(ValidationError, invalid)
    app.add_exception_handler(RequestValidationError, odd)
    app.add_exception_handler(HTTPException, http)


def _allowed(path: str, routes: Sequence[APIRoute]) -> set[str]:
    """The methods of every route at a path that is named; else those of what it is one of."""
    named = [route for route in routes if route.path == path]
    found = named or [route for route in routes if route.path_regex.match(path)]
    return {method for route in found for method in route.methods or ()}


def from_validation(error: ValidationError) -> ServerError:
    """A wire model's complaint as one of ours: the first fault in front, the first 20 in `faults`.

    What the caller sent is left out: it may be long, and it may be private.
    """
    return _complaint(error.errors(include_url=False, include_input=False, include_context=True))


def _complaint(faults: Sequence[Mapping[str, Any]]) -> ServerError:
    if faults[0]["type"] == "json_invalid":
        return MalformedBody(faults[0]["msg"])
    told = [{"param": field_path(f["loc"]), "message": _message(f)} for f in faults[:MAX_FAULTS]]
    sort = UnsupportedInput if faults[0]["type"] == "unsupported_input" else RequestError
    message = f"{told[0]['param'] or 'The body'}: {told[0]['message']}"
    return sort(message, param=told[0]["param"], faults=told)


def field_path(loc: Iterable[str | int]) -> str | None:
    """`("questions", 3, "<choice>", "choices")` as `questions[3].choices`.

    Parts in angle brackets are the tags of our unions and stand for no field.
    """
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):
            path += f".{part}" if path else part
    return path or None


def _message(fault: Mapping[str, object]) -> str:
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{message[:1].upper()}{message[1:]}"
