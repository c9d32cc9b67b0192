"""One line of the routing log, as it is written and as it is read. Imports nothing heavy.

A line says how one sample was routed and what it was answered, or what a caller said of an answer
afterwards (feedback). No text of a request is in it: the values of choices stand as digests, keyed
with the request's id, so that equal values of two requests differ. A digest tells whether a guessed
value is right; it does not tell the value.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, TypeAdapter, model_validator

from experts.manifest import Record

DIGEST_BYTES = 8
DIGITS = 6
"""What shares and probabilities are rounded to."""
Sees = Literal["input", "choices", "instruction", "all"]
"""What the request router was given: the input, with choices, with an instruction, or with both."""
SORTS: tuple[Sees, ...] = get_args(Sees)
Digest = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{2 * DIGEST_BYTES}}}$")]
RequestId = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")]
Index = Annotated[int, Field(strict=True, ge=0)]


class Candidate(Record):
    """One candidate of the request router."""

    id: str
    score: float


class Weighed(Record):
    """One expert of the selection, best first."""

    id: str
    version: int
    weight: float


class Selected(Record):
    """The selection, without its reason."""

    mode: str
    experts: tuple[Weighed, ...] = ()
    strength: float
    token_router: str | None = None
    top_k: int


class Answered(Record):
    """The likeliest option, by its place, and its probability.

    A predicate's options are true and false, in that order.
    """

    index: int
    probability: float


class Line(Record):
    """What all lines share.

    Attributes:
        time: seconds since the epoch. question: the place of the question, or of the input, in its
            request.
    """

    format: Literal[1] = 1
    time: float
    request_id: RequestId
    question: Index = 0


class RoutedLine(Line):
    """One sample.

    Attributes:
        sees: what the request router was given. candidates: its best, with their scores.
        library: the generation of the library it was routed with. calibration: the version of the
            constants, None where the caller named the experts. latency_ms: of the whole request.
        answer: None where none was asked for, or the question was refused. values: digests of the
            options' values, in order.
    """

    event: Literal["routed"] = "routed"
    router: str
    sees: Sees
    candidates: tuple[Candidate, ...] = ()
    selection: Selected
    confidence: float | None = None
    alpha: float | None = None
    fallback: str | None = None
    replaced: tuple[str, ...] = ()
    narrowed: bool = False
    library: str = ""
    calibration: str | None = None
    latency_ms: float
    tokens: int
    answer: Answered | None = None
    values: tuple[Digest, ...] = ()


class FeedbackLine(Line):
    """What a caller said of an answer: whether it was right, or which option is.

    `expected` is that option's place, or the digest of its value.
    """

    event: Literal["feedback"] = "feedback"
    correct: bool | None = None
    expected: Index | Digest | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.correct is None) == (self.expected is None):
            raise ValueError("expected one of correct and expected")
        return self


AnyLine = RoutedLine | FeedbackLine
_parser: TypeAdapter[AnyLine] = TypeAdapter(Annotated[AnyLine, Field(discriminator="event")])


def parse_line(text: str | bytes) -> AnyLine:
    """A line of the log.

    Raises:
        ValueError: it is torn, or nothing this version wrote.
    """
    return _parser.validate_json(text)


def digests(request_id: str, values: Iterable[str | bool]) -> tuple[str, ...]:
    """Digests of the values of choices; a string and a boolean with the same text differ."""
    key = blake2b(request_id.encode(), digest_size=32).digest()
    keyed = blake2b(digest_size=DIGEST_BYTES, key=key)
    found: list[str] = []
    for value in values:
        one = keyed.copy()
        one.update(f"{type(value).__name__}:{value}".encode())
        found.append(one.hexdigest())
    return tuple(found)
