"""Figures of a log against what plain counting gives."""

from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.evidence.reader import FeedbackCounts, Joined, Row, join
from server.evidence.scoring import score
from server.evidence.summary import BUCKETS, over_time, summarise

WEIGHTS = st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 1), max_size=3).map(
    lambda found: tuple(sorted(found.items(), key=lambda item: -item[1]))
)
SHARE = st.floats(0, 1)
ROWS = st.lists(
    st.builds(
        Row, time=st.floats(0, 1e9), router=st.sampled_from(["sailplane", "dam"]),
        sees=st.just("choices"), experts=WEIGHTS, confidence=SHARE | st.none(),
        probability=SHARE | st.none(), right=st.booleans() | st.none(),
        fallback=st.none() | st.just("no_fit"), latency_ms=st.floats(0, 1e4), tokens=st.just(2),
    ),
    max_size=40,
)  # fmt: skip


@given(ROWS)
def test_counts_add_up(rows):
    found = summarise(Joined(rows, FeedbackCounts()))
    took_part = Counter(id for row in rows for id, _ in row.experts)
    assert {use.expert: use.count for use in found.usage} == took_part
    for use in found.usage:
        own = [w for row in rows for id, w in row.experts if id == use.expert]
        assert use.mean_weight == pytest.approx(sum(own) / len(own))
        assert use.share == use.count / len(rows) >= use.first_share
    assert sum(use.first for use in found.usage) == sum(bool(row.experts) for row in rows)
    together = sum(len(row.experts) * (len(row.experts) - 1) // 2 for row in rows)
    assert sum(pair.count for pair in found.pairs) == together
    assert sum(found.routers.values()) == len(rows)
    assert sum(found.fallbacks.values()) == sum(row.fallback is not None for row in rows)
    known = sum(row.confidence is not None for row in rows)
    assert sum(stretch.count for stretch in found.confidence) == known
    for groups in (found.by_router, found.by_expert):
        if any(row.right is not None for row in rows):
            assert sum(one.accuracy.right for one in groups) == sum(
                row.right is True for row in rows
            )
        else:
            assert groups == []


@given(ROWS)
def test_stretches_of_time_are_ordered_few_and_hold_their_quantiles(rows):
    found = over_time(rows)
    starts = [stretch.start for stretch in found]
    assert starts == sorted(set(starts))
    assert all(0 <= s.low <= s.median <= s.high <= 1 for s in found)
    times = [row.time for row in rows if row.confidence is not None]
    if times and max(times) - min(times) < 1e7:
        assert len(found) <= BUCKETS
    assert all(any(s.start <= t <= s.start + s.seconds for s in found) for t in times)


@given(ROWS)
def test_scores_are_of_the_answers_with_feedback(rows):
    for one in score(rows).routers:
        own = [r for r in rows if r.router == one.name]
        assert one.questions == len(own)
        known = [r for r in own if r.right is not None]
        assert (one.accuracy.judged, one.accuracy.right) == (
            len(known), sum(bool(r.right) for r in known),
        )  # fmt: skip
        assert one.error is None or 0 <= one.error <= 1


def test_a_log_by_hand(routed, told):
    log = join(
        [
            routed("r1", experts={"a": 0.75, "b": 0.25}, values="xy", answer=0, confidence=0.95),
            routed("r2", values="xy", answer=1, confidence=1.0, replaced=("c",), latency_ms=3.0),
            routed("r3", router="base", experts={}, confidence=None),
            told("r1", expected="x"),
            told("r2", correct=False),
        ]
    )
    found = summarise(log)
    assert [(u.expert, u.count, u.mean_weight, u.first) for u in found.usage] == [
        ("a", 2, 0.875, 2), ("b", 1, 0.25, 0),
    ]  # fmt: skip
    assert [asdict(pair) for pair in found.pairs] == [
        {"experts": ("a", "b"), "count": 1, "share": pytest.approx(1 / 3)}
    ]
    (stretch,) = found.confidence
    assert (stretch.count, stretch.median) == (2, pytest.approx(0.975))
    assert found.replaced == {"c": 1}
    assert found.latency_ms["max"] == 3.0
    (judged,) = found.by_confidence
    assert (judged.key, judged.accuracy.judged, judged.accuracy.right) == ("0.9-1.0", 2, 1)
    assert [(one.key, one.accuracy.share) for one in found.by_router] == [
        ("sailplane", 0.5), ("base", None),
    ]  # fmt: skip
    (glider, base) = score(log.rows).routers
    assert (glider.confidence, glider.error) == (0.75, 0.25)
    assert base.accuracy.judged == 0
