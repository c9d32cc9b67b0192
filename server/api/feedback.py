"""`POST /v1/feedback`: what a caller knows of an answer, for the routing log.

Stateless: it is noted as a line of its own. Whether there was such an answer is found out when the
log is read.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request, Response
from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)

from server.api.context import context
from server.api.faults import ERROR_RESPONSES
from server.api.lean import LeanRoute, json_response
from server.api.wire.base import Wire, invalid, shape_of
from server.errors import QueueFull
from server.evidence.record import FeedbackLine, RequestId, digests

router = APIRouter(prefix="/v1", tags=["routing"], route_class=LeanRoute)

Expected = Annotated[
    Annotated[StrictBool, Tag("<boolean>")]
    | Annotated[StrictInt, Field(ge=0), Tag("<index>")]
    | Annotated[StrictStr, Field(min_length=1), Tag("<string>")],
    Discriminator(
        shape_of((bool, "<boolean>"), (int, "<index>"), (str, "<string>")),
        custom_error_type="index_or_value",
        custom_error_message="must be an index or the value of a choice",
    ),
]


class FeedbackRequest(Wire):
    """Whether an answer was right, or which one is.

    `expected` is the place of the right option among those asked, or its value: a predicate's
    options are true and false, those of a score its levels.
    """

    request_id: RequestId = Field(description="The `X-Request-Id` of the answer.")
    question: Annotated[StrictInt, Field(ge=0)] = 0
    correct: StrictBool | None = None
    expected: Expected | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.correct is None) == (self.expected is None):
            raise invalid("expected exactly one of correct and expected")
        return self

    def line(self) -> FeedbackLine:
        """For the log: a value stands as its digest."""
        expected = self.expected
        if isinstance(expected, str | bool):
            (expected,) = digests(self.request_id, [expected])
        return FeedbackLine(
            time=round(time.time(), 3),
            request_id=self.request_id,
            question=self.question,
            correct=self.correct,
            expected=expected,
        )


class FeedbackBody(BaseModel):
    """It will be written."""

    object: Literal["feedback"] = "feedback"
    request_id: str
    question: int


@router.post("/feedback", status_code=202, response_model=FeedbackBody, responses=ERROR_RESPONSES)
async def give_feedback(body: FeedbackRequest, request: Request) -> Response:
    """Note in the routing log whether an answer was right. The last word on a question counts."""
    log = context(request).require_routing_log()
    line = body.line()
    if not log.write(lambda: (line,)):
        raise QueueFull("The routing log cannot keep up; try again.")
    said = FeedbackBody(request_id=body.request_id, question=body.question)
    return json_response(said, 202)
