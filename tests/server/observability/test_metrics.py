"""What one trace adds to the metrics."""

import pytest

from routers.types import Chosen, Selection
from server.engine.messages import CandidateTrace, Trace
from server.observability.metrics import Metrics

CHOSEN = Selection(mode="single", experts=(Chosen(id="mood", weight=1.0),))


@pytest.fixture
def buckets_of():
    """How many of these traces lie in each bucket of a histogram, by its upper bound."""

    def count(name, *traces):
        metrics = Metrics()
        for trace in traces:
            metrics.trace(trace)
        value = metrics.registry.get_sample_value
        name = f"sailplane_routing_{name}"
        found = {}
        for family in metrics.registry.collect():
            if family.name == name:
                found = {
                    s.labels["le"]: s.value for s in family.samples if s.name == f"{name}_bucket"
                }
        assert value(f"{name}_count") == found["+Inf"]
        below = 0.0
        for bound, total in found.items():
            found[bound], below = total - below, total
        return {float(bound): n for bound, n in found.items() if n}

    return count


@pytest.mark.parametrize(
    ("score", "bound"),
    [(-1.0, -0.75), (-0.6, -0.5), (-0.01, 0.0), (0.0, 0.0), (0.55, 0.6), (0.97, 1.0), (1.0, 1.0)],
)
def test_the_best_score_is_counted_whatever_its_sign(buckets_of, score, bound):
    candidates = tuple(CandidateTrace(f"e{i}", score - i, {}) for i in range(2))
    trace = Trace("glider", CHOSEN, candidates=candidates)
    assert buckets_of("top_score", trace) == {bound: 1}


@pytest.mark.parametrize(
    ("confidence", "bound"),
    [(0.0, 0.05), (0.03, 0.05), (0.499, 0.5), (0.501, 0.6), (0.985, 0.99), (0.995, 1.0)],
)
def test_confidence_is_counted(buckets_of, confidence, bound):
    trace = Trace("sailplane", CHOSEN, confidence=confidence)
    assert buckets_of("confidence", trace) == {bound: 1}


def test_what_has_no_confidence_and_no_candidates_is_not_counted(buckets_of):
    explicit = Trace("explicit", CHOSEN)
    assert buckets_of("confidence", explicit) == {}
    assert buckets_of("top_score", explicit) == {}
