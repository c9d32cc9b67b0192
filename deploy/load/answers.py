"""What a right answer looks like: checks of bodies, beyond their status codes.

Every check takes what was asked and what came back, and raises `Wrong` with the reason. Knows
nothing of locust, of connections and of time.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

SUM, NORM, EQUAL = 1e-4, 1e-3, 1e-3
"""How far a sum of probabilities, a length, and the parts of equal vectors may be off: batches
change the last bits, and a wrong answer is off by far more."""


class Wrong(AssertionError):
    """The server answered, and the answer cannot be right."""


def require(holds: object, why: str) -> None:
    """Raise unless it holds.

    Raises:
        Wrong: it does not.
    """
    if not holds:
        raise Wrong(why)


def decision(
    asked: Mapping[str, Any], told: Mapping[str, Any], known: Collection[str],
    right: Sequence[str | None] = (), labelled: Collection[str] = (),
) -> None:  # fmt: skip
    """Check the answers of `/v1/decisions`.

    Args:
        known: the experts there are. right: for each question the one right choice, None where
            several might be. labelled: the experts that can judge a statement.
    """
    questions, answers = asked["questions"], told["answers"]
    require(len(answers) == len(questions), f"{len(answers)} answers to {len(questions)} questions")
    require(told["model"] == asked["model"], "another model answered")
    routing(asked, told, known)
    for question, answer, trace in zip(
        questions, answers, told["routing"]["questions"], strict=True
    ):
        if answer["type"] == "refusal":
            _refusal(question, answer, trace, labelled)
            continue
        require(answer["type"] == question["type"], f"a {question['type']} got {answer['type']}")
        SHAPES[question["type"]](question, answer)
    for place, choice in enumerate(right):
        if choice is not None:
            got = answers[place]["choice"]
            require(got == choice, f"the answer is {choice!r}, and the server said {got!r}")


def _refusal(
    question: Mapping[str, Any], answer: Mapping[str, Any], trace: Mapping[str, Any] | None,
    labelled: Collection[str],
) -> None:  # fmt: skip
    """Check that a question may be refused: a statement, and nobody chosen who can judge it."""
    chosen = {e["id"] for e in trace["selection"]["experts"]} if trace else set()
    able = chosen & set(labelled)
    if question["type"] != "predicate" or able:
        raise Wrong(f"a {question['type']} was refused: {answer['reason']}")


def routing(asked: Mapping[str, Any], told: Mapping[str, Any], known: Collection[str]) -> None:
    """Check the traces of `/v1/decisions` and `/v1/route`, and the usage."""
    traces, level = told["routing"]["questions"], asked.get("routing", {}).get("trace", "summary")
    require(len(traces) == len(asked["questions"]), f"{len(traces)} traces")
    for trace in traces:
        require((trace is None) == (level == "none"), f"trace: {level} was not heeded")
        if trace is not None:
            _trace(trace, level, asked["model"], known)
    usage = told["usage"]
    require(usage["input_tokens"] > 0, "no tokens were read")
    require(usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], "bad usage")


def _trace(trace: Mapping[str, Any], level: str, model: str, known: Collection[str]) -> None:
    chosen = trace["selection"]["experts"]
    named = {e["id"] for e in chosen} | {c["id"] for c in trace["candidates"]}
    require(named <= set(known), f"the trace names experts that are not there: {named}")
    require(all(e["weight"] > 0 for e in chosen), "an expert of no weight")
    total = sum(e["weight"] for e in chosen)
    require(not chosen or abs(total - 1) < SUM, f"weights of the selection sum to {total}")
    if model in known:
        require([e["id"] for e in chosen] == [model], f"model {model} was not forced")
    require(trace["instruction"] or trace["writer"], "no instruction")
    if level == "full":
        missing = [name for name in ("cache", "milliseconds", "tokens") if trace[name] is None]
        require(not missing, f"trace: full lacks {missing}")


def _choice(question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    shares = answer["probabilities"]
    offered = [c["value"] for c in question["choices"]]
    require([s["value"] for s in shares] == offered, "the probabilities are of other choices")
    likely = _distribution([s["probability"] for s in shares], answer["confidence"])
    require(answer["choice"] == offered[likely], "the choice is not the likeliest")


def _predicate(question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    require(0 <= answer["probability"] <= 1, f"a probability of {answer['probability']}")


def _score(question: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    shares = answer["probabilities"]
    require(
        [s["label"] for s in shares] == [level["label"] for level in question["levels"]],
        "the probabilities are of other levels",
    )
    _distribution([s["probability"] for s in shares], answer["confidence"])
    mean = sum(s["value"] * s["probability"] for s in shares)
    require(abs(mean - answer["score"]) < SUM * len(shares), "the score is not the expectation")


SHAPES = {"choice": _choice, "predicate": _predicate, "score": _score}


def _distribution(probabilities: Sequence[float], confidence: float) -> int:
    """Check that these are probabilities and the highest one the confidence; its place."""
    require(all(0 <= p <= 1 for p in probabilities), "a probability outside 0 to 1")
    require(abs(sum(probabilities) - 1) < SUM, f"probabilities sum to {sum(probabilities)}")
    top = max(probabilities)
    require(confidence == top, "the confidence is not the highest probability")
    return probabilities.index(top)


def embeddings(
    asked: Mapping[str, Any], told: Mapping[str, Any], width: int, known: Collection[str]
) -> list[list[float]]:
    """Check the answer of `/v1/embeddings`; its vectors."""
    inputs = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    data = told["data"]
    require([d["index"] for d in data] == [*range(len(inputs))], "vectors are missing or moved")
    vectors = [d["embedding"] for d in data]
    for vector in vectors:
        require(len(vector) == width, f"a vector of {len(vector)} numbers, not {width}")
        norm = math.sqrt(sum(x * x for x in vector))
        require(abs(norm - 1) < NORM, f"a vector of length {norm}, not 1")
    first: dict[str, list[float]] = {}
    for text, vector in zip(inputs, vectors, strict=True):
        same(first.setdefault(text, vector), vector)
    experts = {e["id"] for e in told["routing"]["selection"]["experts"]}
    require(experts <= set(known), f"the selection names experts that are not there: {experts}")
    require(told["usage"]["prompt_tokens"] > 0, "no tokens were read")
    return vectors


def same(one: Sequence[float], other: Sequence[float]) -> None:
    """Check that two vectors of one text, made with one selection, are equal."""
    off = max(abs(a - b) for a, b in zip(one, other, strict=True))
    require(off < EQUAL, f"equal texts with one selection have vectors that differ by {off:.2g}")


def error(told: Mapping[str, Any], code: str) -> None:
    """Check the body of an error."""
    detail = told["error"]
    require({"message", "type", "param", "code"} <= set(detail), "an error lacks a field")
    require(detail["message"], "an error without a message")
    require(detail["code"] == code, f"code {detail['code']!r} where {code!r} was expected")


def refused(status: int, headers: Mapping[str, str], told: Mapping[str, Any]) -> None:
    """Check a 503 or 429: it has to say when to come again."""
    wait = headers.get("retry-after") or headers.get("Retry-After") or ""
    require(wait.isdecimal() and int(wait) > 0, f"{status} without a Retry-After in whole seconds")
    error(told, told["error"]["code"])


def listed(told: Mapping[str, Any], wanted: Collection[str]) -> None:
    """Check that a list of models or experts holds at least these."""
    require(told["object"] == "list", "not a list")
    missing = set(wanted) - {entry["id"] for entry in told["data"]}
    require(not missing, f"the list lacks {sorted(missing)}")
