"""Everything that can go wrong with a request, as one tree, and one table to HTTP.

ServerError
├── RequestError           the caller must change the request
│   ├── UnsupportedInput   a part this backbone cannot read, such as an image
│   ├── TooManyTokens      more tokens are asked for than one request may have
│   ├── ContextExceeded    prompt and answer are longer than the backbone's context
│   ├── MalformedBody      the body is not JSON
│   ├── UnreadEncoding     the body is compressed
│   ├── MalformedHead      what came is no HTTP
│   ├── HeadTooLarge       its headers exceed the server's limit
│   ├── TooSlow            it did not arrive in time
│   └── BodyTooLarge       the body exceeds the server's limit
├── UnknownCaller          the caller must send a key, or another one
├── NotAllowed             the caller's key may not do this: its operator must act
├── UnknownModel           no such model: the caller must name another
├── NoRoutingLog           there is nothing that feedback could join: the operator must act
├── Unavailable            the caller may try again later
│   ├── QueueFull          more samples wait than the server takes
│   ├── Draining           the server is about to stop
│   ├── RateReached        the caller's key has used what it may use in a minute
│   └── TooManyAtOnce      as many requests of the caller's key are being answered as may be
├── NeverFits              the server has no memory for this: ask for less, or give it more
├── UnsoundLogits          this answer's numbers overflowed: the caller may choose other weights
├── DeadlinePassed         the caller's deadline came before the answer
├── RemoteError            another server cannot be reached, or refuses: its operator must act
├── BadKeyFile             the operator must mend the file of keys
├── ReplayError            the user of `sailplane route --replay` must change what is replayed
└── BatchError             the user of `sailplane batch` must change a file
    ├── BatchFileError     a file that cannot be read, or must not be written
    └── BadLine            a line that is no request; the run goes on
        └── RepeatedLine   its custom_id belongs to an earlier line

`experts.errors` has the tree of the experts; `TABLE` holds both. `server.api.faults` writes the
responses; nothing here needs a web framework, so the engine may raise these errors too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from experts import errors as expert_errors

E = TypeVar("E", bound=Exception)


class ServerError(Exception):
    """Root of the tree. `param` is the path of the field at fault, where there is one."""

    def __init__(self, message: str, *, param: str | None = None, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.details: Mapping[str, object] = details


class RequestError(ServerError, ValueError):
    """The request cannot be answered as it is."""


class UnsupportedInput(RequestError):
    """A valid part of a sort that this backbone cannot read."""


class ContextExceeded(RequestError):
    """A prompt, with what is to be written after it, that the backbone has no room for."""


class TooManyTokens(RequestError):
    """More tokens to read and write than the server allows one request."""


class MalformedBody(RequestError):
    """The body is not JSON."""


class UnreadEncoding(RequestError):
    """The body has a `Content-Encoding`, and bodies are read as they come."""


class MalformedHead(RequestError):
    """What came is no HTTP."""


class HeadTooLarge(RequestError):
    """The request's line and headers have more bytes than the server takes."""


class TooSlow(RequestError):
    """The request did not arrive in the time that a client has."""


class BodyTooLarge(RequestError):
    """The body has more bytes than the server takes."""


class UnknownCaller(ServerError):
    """There is no key in the request, or none that is known here."""


class NotAllowed(ServerError):
    """The key is known, and may not do what is asked."""


class UnknownModel(ServerError):
    """`model` is neither `auto`, nor an expert, nor the backbone."""


class NoRoutingLog(ServerError):
    """The server was started without a routing log."""


class Unavailable(ServerError):
    """The server cannot take the request now. `retry_after` is in whole seconds."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NeverFits(ServerError):
    """What is asked for takes more memory than there is, however long one waits."""


class QueueFull(Unavailable):
    """More samples wait than the server takes."""


class Draining(Unavailable):
    """The server finishes what it has and takes nothing new."""


class RateReached(Unavailable):
    """The key has used what it may use in a minute."""


class TooManyAtOnce(Unavailable):
    """As many requests of the key are being answered as may be."""


class UnsoundLogits(ServerError):
    """The model gave no numbers to choose a token by."""


class DeadlinePassed(ServerError):
    """The deadline came before the answer."""


class RemoteError(ServerError):
    """Another server failed us. `status` is that of its answer, None where there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BadKeyFile(ServerError):
    """The file of keys cannot be read, or does not say keys."""


class ReplayError(ServerError):
    """A file that holds no trace to replay, or not the one that is meant."""


class BatchError(ServerError):
    """A file of a batch is not as it must be."""


class BatchFileError(BatchError):
    """A file that cannot be read, or must not be written; the message says what to do."""


class BadLine(BatchError):
    """A line that is no request. `custom_id` is None where none can be read."""

    def __init__(self, message: str, custom_id: str | None = None) -> None:
        super().__init__(message)
        self.custom_id = custom_id


class RepeatedLine(BadLine):
    """A line whose `custom_id` belongs to an earlier one."""


@dataclass(frozen=True)
class Row:
    """How one sort of error looks over HTTP."""

    status: int
    type: str
    code: str


TABLE: Mapping[type[Exception], Row] = {
    RequestError: Row(422, "invalid_request_error", "invalid_value"),
    UnsupportedInput: Row(422, "invalid_request_error", "unsupported_input"),
    ContextExceeded: Row(400, "invalid_request_error", "context_length_exceeded"),
    TooManyTokens: Row(400, "invalid_request_error", "too_many_tokens"),
    UnknownCaller: Row(401, "authentication_error", "invalid_api_key"),
    NotAllowed: Row(403, "permission_error", "not_allowed"),
    MalformedBody: Row(400, "invalid_request_error", "malformed_json"),
    UnreadEncoding: Row(415, "invalid_request_error", "unsupported_encoding"),
    MalformedHead: Row(400, "invalid_request_error", "malformed_head"),
    HeadTooLarge: Row(431, "invalid_request_error", "head_too_large"),
    TooSlow: Row(408, "timeout_error", "request_too_slow"),
    BodyTooLarge: Row(413, "invalid_request_error", "body_too_large"),
    UnknownModel: Row(404, "not_found_error", "model_not_found"),
    NoRoutingLog: Row(409, "conflict_error", "no_routing_log"),
    Unavailable: Row(503, "overloaded_error", "unavailable"),
    NeverFits: Row(503, "overloaded_error", "never_fits"),
    QueueFull: Row(503, "overloaded_error", "queue_full"),
    Draining: Row(503, "overloaded_error", "draining"),
    RateReached: Row(429, "rate_limit_error", "rate_limit_exceeded"),
    TooManyAtOnce: Row(429, "rate_limit_error", "too_many_at_once"),
    UnsoundLogits: Row(422, "invalid_request_error", "unsound_logits"),
    DeadlinePassed: Row(504, "timeout_error", "deadline_passed"),
    BadLine: Row(400, "invalid_request_error", "invalid_line"),
    RepeatedLine: Row(400, "invalid_request_error", "repeated_custom_id"),
    expert_errors.UnknownExpert: Row(404, "not_found_error", "expert_not_found"),
    expert_errors.UnknownAlias: Row(404, "not_found_error", "alias_not_found"),
    expert_errors.DuplicateExpert: Row(409, "conflict_error", "expert_exists"),
    expert_errors.AliasedExpert: Row(409, "conflict_error", "expert_aliased"),
    expert_errors.MirroredLibrary: Row(409, "conflict_error", "library_mirrored"),
    expert_errors.MirrorError: Row(503, "overloaded_error", "mirror_failed"),
    expert_errors.BadTags: Row(422, "invalid_request_error", "bad_tags"),
    expert_errors.ForbiddenSource: Row(403, "permission_error", "source_forbidden"),
    expert_errors.BadExpert: Row(422, "invalid_request_error", "bad_expert"),
    expert_errors.UnsupportedExpert: Row(422, "invalid_request_error", "unsupported_expert"),
    expert_errors.MismatchedExpert: Row(422, "invalid_request_error", "mismatched_expert"),
    expert_errors.CorruptExpert: Row(422, "invalid_request_error", "corrupt_expert"),
    expert_errors.SystemExhausted: Row(503, "overloaded_error", "system_exhausted"),
    expert_errors.LibraryUnreachable: Row(503, "overloaded_error", "library_unreachable"),
    expert_errors.MixError: Row(422, "invalid_request_error", "bad_mix"),
    expert_errors.ChatError: Row(422, "invalid_request_error", "bad_chat"),
    expert_errors.InputTooLong: Row(422, "invalid_request_error", "input_too_long"),
}
INTERNAL = Row(500, "server_error", "internal_error")


def row_of(error: BaseException) -> Row:
    """The table's row for an error: that of its nearest class, or an internal error."""
    return next((TABLE[c] for c in type(error).__mro__ if c in TABLE), INTERNAL)


def located(error: E, param: str) -> E:
    """The same error, naming the field at fault, unless it names one already."""
    if getattr(error, "param", None) is None:
        error.param = param  # type: ignore[attr-defined]
    return error
