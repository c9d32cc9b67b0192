"""A token is spelled by its bytes, whatever stands beside it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from experts.backbones.spelling import Spelling, readable
from tests.tokenizers_by_byte import bytewise, with_fallback

BY_LETTER, FALLING_BACK = bytewise(), with_fallback()


@given(st.text(max_size=12))
def test_bytes_by_letters_make_the_text(text: str):
    spelling = Spelling(BY_LETTER)
    ids = BY_LETTER(text, add_special_tokens=False)["input_ids"]
    assert b"".join(map(spelling.bytes_of, ids)) == text.encode()


def test_bytes_by_number_and_spaces_before_words():
    spelling, known = Spelling(FALLING_BACK), FALLING_BACK.get_vocab()
    ids = [known[piece] for piece in ("▁a", "c", "<0xC3>", "<0xA9>", "▁b")]
    assert b"".join(map(spelling.bytes_of, ids)) == " acé b".encode()


def test_words_of_a_tokenizer_without_bytes():
    backend = Tokenizer(models.WordLevel({"▁a": 0, "b": 1, "?": 2}, "?"))
    backend.decoder = decoders.Metaspace()
    spelling = Spelling(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert [spelling.bytes_of(id) for id in range(2)] == [b" a", b"b"]


@given(st.text(max_size=12))
def test_tokens_read_as_the_text_where_no_character_is_split(text: str):
    ids = BY_LETTER(text, add_special_tokens=False)["input_ids"]
    read = Spelling(BY_LETTER).read(ids)
    if not any(word.startswith("bytes:") for word in read):
        assert "".join(read) == text
    assert len(read) == len(ids)


def test_pieces_of_wordpiece_read_as_words():
    vocabulary = {"[CLS]": 0, "glid": 1, "##ers": 2, "soar": 3, "[SEP]": 4, "?": 5}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="?"))
    backend.decoder = decoders.WordPiece()
    known = PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", unk_token="?"
    )
    assert Spelling(known).read(range(5)) == ("[CLS]", " glid", "ers", " soar", "[SEP]")


def test_a_part_of_a_character_reads_as_its_bytes():
    assert readable("é".encode()) == "é"
    assert readable("é".encode()[:1]) == "bytes:\\xc3"
