"""Requests that a server must refuse, each with the status and the code of its refusal."""

from __future__ import annotations

import json
from dataclasses import dataclass

DECISIONS, EMBEDDINGS = "/v1/decisions", "/v1/embeddings"


@dataclass(frozen=True)
class Refusal:
    """A bad request.

    Attributes:
        name: what is bad about it. status, code: of the error that must come back.
    """

    name: str
    status: int
    code: str
    path: str = DECISIONS
    body: bytes = b""
    method: str = "POST"


def _decision(**changed: object) -> bytes:
    """A good decisions request, changed into a bad one."""
    choices = [{"value": "yes"}, {"value": "no"}]
    question = {"type": "choice", "instructions": "Is it a ship?", "choices": choices}
    good = {"model": "auto", "input": "A ship sails by.", "questions": [question]}
    return json.dumps(good | changed).encode()


REFUSALS = (
    Refusal("unknown model", 404, "model_not_found", body=_decision(model="no-such-expert")),
    Refusal("malformed JSON", 400, "malformed_json", body=b'{"model": "auto", "input": "A ship'),
    Refusal("input of a wrong type", 422, "invalid_value", body=_decision(input=12)),
    Refusal("no questions", 422, "invalid_value", body=_decision(questions=[])),
    Refusal("unknown field", 422, "invalid_value", body=_decision(temperatur=0.5)),
    Refusal(
        "unknown expert in routing", 404, "expert_not_found",
        body=_decision(routing={"experts": {"no-such-expert": 1.0}}),
    ),
    Refusal(
        "contradiction", 422, "invalid_value",
        body=_decision(routing={"experts": {"a": 1.0}, "router": "default"}),
    ),
    Refusal(
        "token arrays", 422, "unsupported_input", EMBEDDINGS,
        json.dumps({"model": "auto", "input": [1, 2, 3]}).encode(),
    ),
    Refusal("unknown route", 404, "route_not_found", "/v1/nowhere", b"{}"),
    Refusal("wrong method", 405, "method_not_allowed", DECISIONS, method="GET"),
)  # fmt: skip


def too_large(limit: int) -> Refusal:
    """A body of more bytes than the server takes: a good one but for its length."""
    return Refusal("too large", 413, "body_too_large", body=_decision(input="ship " * (limit // 5)))
