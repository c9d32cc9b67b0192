"""Feedback finds its answer."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routers.calibration import NO_EXPERT
from server.evidence.reader import join, read_log

VALUES = ["x", "y", True, "True"]
SAID = st.one_of(
    st.builds(lambda c: {"correct": c}, st.booleans()),
    st.builds(lambda e: {"expected": e}, st.sampled_from([0, 1, 2, 3, *VALUES, "elsewhere"])),
)


def verdict(said, answer):
    """The plain model: what one word of feedback says of an answer among `VALUES`."""
    if "correct" in said:
        return said["correct"]
    expected = said["expected"]
    if type(expected) is int:
        return expected == answer
    return (type(expected), expected) == (type(VALUES[answer]), VALUES[answer])


@given(
    answers=st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.integers(0, 2)), st.integers(0, 3) | st.none()
    ),
    feedback=st.lists(
        st.tuples(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), SAID), max_size=20
    ),
    seed=st.integers(),
)
def test_the_last_word_on_a_question_judges_it(routed, told, answers, feedback, seed):
    lines = [
        routed(id, question=q, values=VALUES, answer=answer) for (id, q), answer in answers.items()
    ]
    said = [told(id, q, **word) for (id, q), word in feedback]
    merged, rng = [], random.Random(seed)  # any interleaving, each in its own order
    left = [list(lines), list(said)]
    while any(left):
        merged.append(rng.choice([part for part in left if part]).pop(0))
    joined = join(merged)
    last = dict(feedback)
    expected = [
        verdict(last[key], answer) if key in last and answer is not None else None
        for key, answer in answers.items()
    ]
    assert [row.right for row in joined.rows] == expected
    counts = joined.feedback
    assert counts.lines == len(feedback)
    assert counts.joined == sum(v is not None for v in expected)
    assert counts.unmatched == len(set(last) - set(answers))
    assert counts.joined + counts.unmatched + counts.unanswered == len(last)


def test_an_id_used_twice_is_the_later_answer(routed, told):
    twice = [routed(answer=0, values="xy"), routed(answer=1, values="xy"), told(expected="y")]
    assert [row.right for row in join(twice).rows] == [None, True]


def test_a_row_without_an_expert_says_so(routed):
    (row,) = join([routed(experts={}, fallback="no_fit")]).rows
    assert row.first == NO_EXPERT
    assert row.fallback == "no_fit"


def test_a_log_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_log(tmp_path / "nothing.jsonl")
