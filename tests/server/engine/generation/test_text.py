"""Text comes out as it is certain: whole characters, and nothing of a stop text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from server.engine.generation.text import TextStream


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """A tokenizer of which every token is a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


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


def test_the_space_before_the_first_word_is_kept():
    backend = Tokenizer(models.WordLevel({"▁a": 0, "▁b": 1, "?": 2}, "?"))
    backend.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert TextStream(tokenizer, [0]).push(1) == " b"
    assert TextStream(tokenizer).push(1) == "b"
