"""Lines of a routing log, made by hand."""

import pytest

from server.evidence.record import Answered, FeedbackLine, RoutedLine, Selected, Weighed, digests


@pytest.fixture(scope="session")
def routed():
    """`routed(request_id, experts={"a": 0.7, "b": 0.3}, values=["x", "y"], answer=0, ...)`."""

    def make(request_id="r", *, experts=None, values=(), answer=None, probability=0.75, **more):
        experts = {"a": 1.0} if experts is None else experts
        weighed = tuple(Weighed(id=id, version=1, weight=w) for id, w in experts.items())
        mode = "single" if len(weighed) == 1 else "merge" if weighed else "base"
        given = {
            "time": 0.0, "router": "sailplane", "sees": "choices", "latency_ms": 1.0, "tokens": 3,
            "calibration": "c", "library": "1", **more,
        }  # fmt: skip
        return RoutedLine(
            request_id=request_id,
            selection=Selected(mode=mode, experts=weighed, strength=1.0, top_k=2),
            answer=None if answer is None else Answered(index=answer, probability=probability),
            values=digests(request_id, values),
            **given,
        )

    return make


@pytest.fixture(scope="session")
def told():
    """`told("r", correct=True)`, or `expected=` an index or a value."""

    def make(request_id="r", question=0, *, correct=None, expected=None):
        if isinstance(expected, str | bool):
            (expected,) = digests(request_id, [expected])
        return FeedbackLine(
            time=1.0, request_id=request_id, question=question, correct=correct, expected=expected
        )

    return make
