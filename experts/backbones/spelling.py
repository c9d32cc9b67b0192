"""The bytes that a token stands for, whatever stands beside it; and how tokens read one by one.

A token may be a part of a character, and have no text of its own. Knows the two ways in which fast
tokenizers spell bytes: a letter for each (GPT-2, Llama 3, Qwen), or `<0x0A>` (Llama 2, Gemma); and
that WordPiece (BERT) marks what goes on with a word, where others mark what begins one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
SPACE = "▁"
"""How SentencePiece writes a space."""
GOES_ON = "##"
"""How WordPiece begins a piece that is not the first of its word."""


class Spelling:
    """Spells the tokens of a fast tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
        told = b"" if decoder is None else decoder.__getstate__()
        self._by_letter = (
            {letter: byte for byte, letter in bytes_to_unicode().items()}
            if b'"ByteLevel"' in told
            else {}
        )
        self._falls_back = b'"ByteFallback"' in told
        self._marks_inner = b'"WordPiece"' in told
        self._special = frozenset(getattr(tokenizer, "all_special_tokens", ()))

    def bytes_of(self, token: int) -> bytes:
        """What a token adds to a text, special ones as they are written."""
        piece = self._tokenizer.convert_ids_to_tokens(token) or ""
        if self._by_letter and all(letter in self._by_letter for letter in piece):
            return bytes(self._by_letter[letter] for letter in piece)
        if self._falls_back and (byte := BYTE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        text = self._tokenizer.decode([token], clean_up_tokenization_spaces=False)
        begins = piece.startswith(SPACE) and not text.startswith(" ")
        return (" " + text if begins else text).encode()

    def read(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """How each of some tokens reads; end to end they are the text, or nearly so."""
        return tuple(self._read(token) for token in tokens)

    def _read(self, token: int) -> str:
        if not self._marks_inner:
            return readable(self.bytes_of(token))
        piece = self._tokenizer.convert_ids_to_tokens(token) or ""
        begins = piece not in self._special and not piece.startswith(GOES_ON)
        return f" {piece}" if begins else piece.removeprefix(GOES_ON)


def readable(spelled: bytes) -> str:
    """A token's bytes as text, or as OpenAI tells of those that are none."""
    try:
        return spelled.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelled)
