"""Text comes out as it is certain: whole characters, and nothing of a stop text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from server.engine.generation.text import HELD, TextStream
from tests import tokenizers_by_byte


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    return tokenizers_by_byte.bytewise()


@pytest.fixture(scope="module")
def fallback() -> PreTrainedTokenizerFast:
    return tokenizers_by_byte.with_fallback()


def written(tokenizer, text: str, stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    stream = TextStream(tokenizer, (), stops)
    pieces = []
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        pieces.append(stream.push(token))
        if stream.stopped:
            return pieces, True
    return [*pieces, stream.end()], False


@given(text=st.text(max_size=12))
def test_pieces_make_the_text(bytewise, text):
    pieces, _ = written(bytewise, text)
    assert "".join(pieces) == text
    assert "�" not in "".join(pieces) or "�" in text


LETTERS = st.text("abé", max_size=14)


@given(text=LETTERS, stops=st.lists(st.text("abé", min_size=1, max_size=4), max_size=3))
def test_a_stop_text_ends_and_nothing_of_it_is_told(bytewise, text, stops):
    pieces, stopped = written(bytewise, text, tuple(stops))
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert stopped == bool(ends)
    if not ends:
        assert "".join(pieces) == text
        return
    seen = text[: min(ends)]  # no token after the first stop text is complete
    assert "".join(pieces) == seen[: min(seen.find(s) for s in stops if s in seen)]


def ids_of(tokenizer, text: str) -> list[int]:
    """Words where there are any, else bytes."""
    known = tokenizer.get_vocab()
    return [
        id
        for c in text
        for id in ([known[c]] if c in known else [known[f"<0x{b:02X}>"] for b in c.encode()])
    ]


@given(st.lists(st.integers(1, 260), max_size=24), st.lists(st.integers(1, 260), max_size=12))
def test_whatever_is_drawn_no_token_fails_and_no_prompt_is_told(fallback, drawn, before):
    stream = TextStream(fallback, before)
    told = "".join([*(stream.push(token) for token in drawn), stream.end()])
    assert len(told.encode()) <= 3 * (len(drawn) + len(before))
    letters = {c for c in told if c in "abc"}
    assert letters <= {c for token in drawn for c in fallback.decode([token])}


@given(text=st.text("c€é", max_size=12), before=st.text("c€é", max_size=12))
def test_a_prompt_of_bytes_is_no_part_of_the_text(fallback, text, before):
    stream = TextStream(fallback, ids_of(fallback, before))
    pieces = [stream.push(token) for token in ids_of(fallback, text)]
    assert "".join([*pieces, stream.end()]) == text


def test_a_broken_byte_after_a_character_takes_nothing_back(fallback):
    stream = TextStream(fallback, [1])
    ids = [*ids_of(fallback, "€"), *ids_of(fallback, "é")[:1], 2]
    assert [stream.push(token) for token in ids] == ["", "", "€", "", "� b"]


def test_bytes_that_never_become_a_character_are_told_at_last(fallback):
    stream = TextStream(fallback, [1])
    broken = ids_of(fallback, "é")[:1] * (2 * HELD)
    assert "".join([*(stream.push(token) for token in broken), stream.end()]) == "�" * (2 * HELD)


def test_no_stop_text_counts_before_it_may(bytewise):
    stream = TextStream(bytewise, (), ("b",))
    ids = bytewise("abab", add_special_tokens=False)["input_ids"]
    told = [stream.push(id, may_stop=i > 1) for i, id in enumerate(ids)]
    assert (told, stream.stopped) == (["a", "b", "a", ""], True)


def test_the_space_before_the_first_word_is_kept():
    backend = Tokenizer(models.WordLevel({"▁a": 0, "▁b": 1, "?": 2}, "?"))
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert TextStream(tokenizer, [0]).push(1) == " b"
    assert TextStream(tokenizer).push(1) == "b"
