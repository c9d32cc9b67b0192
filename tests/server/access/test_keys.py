"""Keys are told by the whole of what a caller sends, and by nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.access.keys import PERMISSIONS, Keyring, Limits, digest, make_key

MADE = [make_key(f"team-{i}", ["infer"], [f"team-{i}"]) for i in range(3)]
RING = Keyring(key for key, _ in MADE)


def test_a_key_is_found_by_its_token_and_keeps_only_a_digest_of_it():
    for key, token in MADE:
        assert RING.find(token) is key
        assert key.sha256 == digest(token)
        assert token.split("-", 2)[2] not in key.model_dump_json()


@given(st.sampled_from(MADE), st.integers(0, 59), st.characters(codec="ascii"))
def test_a_token_with_one_other_character_is_nobodys(made, at, other):
    _, token = made
    altered = token[:at] + other + token[at + 1 :]
    found = RING.find(altered)
    assert found is None or altered == token


@given(st.text())
def test_no_text_is_a_key_by_chance_and_none_is_too_odd_to_be_refused(text):
    assert RING.find(text) is None


def test_the_public_part_of_one_key_and_the_secret_of_another_are_no_key():
    (_, a), (_, b) = MADE[:2]
    assert RING.find(a[:16] + b[16:]) is None


def test_a_key_ends_when_it_expires():
    now = datetime.now(UTC)
    over, token = make_key("old", ["infer"], expires=now - timedelta(seconds=1))
    fresh, other = make_key("new", ["infer"], expires=now + timedelta(hours=1))
    ring = Keyring([over, fresh])
    assert ring.find(token) is None
    assert ring.find(other) is fresh


def test_a_key_without_tags_may_use_every_expert_and_one_with_tags_those_that_carry_them():
    unlimited, _ = make_key("all", PERMISSIONS)
    assert not unlimited.scope.limited
    limited, _ = make_key("some", PERMISSIONS, ["a", "b"])
    assert limited.scope.tags == {"a", "b"}


@pytest.mark.parametrize(
    "odd",
    [
        {"name": "two words"},
        {"permissions": ["everything"]},
        {"tags": []},
        {"tags": ["a,b"]},
        {"expires": datetime(2030, 1, 1)},  # noqa: DTZ001: without a zone, which is the point
    ],
)
def test_what_makes_no_sense_in_a_key_is_refused(odd):
    with pytest.raises(ValidationError):
        make_key(**{"name": "team", "permissions": ["infer"], **odd})


def test_limits_are_above_nought():
    for name in Limits.model_fields:
        with pytest.raises(ValidationError):
            Limits(**{name: 0})
