"""From tokens to text as it is written: whole characters, and nothing of a stop text.

A character may span tokens, and so may a stop text: what may still turn into either is held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

CONTEXT = 8
"""Tokens of the prompt that a text begins after: they settle the space before its first word."""


class TextStream:
    """The text of one row.

    Args:
        tokenizer: a fast one of transformers. before: tokens that the text continues, if any.
        stops: texts that end it.
    """

    def __init__(
        self, tokenizer: Any, before: Sequence[int] = (), stops: Sequence[str] = ()
    ) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._stream = DecodeStream(list(before[-CONTEXT:]), skip_special_tokens=True)
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain after one more token; "" where nothing is yet."""
        self._held += self._stream.step(self._backend, token) or ""
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            told, self._held = self._held[: min(found)], ""
            return told
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        at = len(self._held) - keep
        told, self._held = self._held[:at], self._held[at:]
        return told

    def end(self) -> str:
        """What was held back, once nothing more comes."""
        told, self._held = self._held, ""
        return told


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if stop.startswith(text[-n:])), 0)
