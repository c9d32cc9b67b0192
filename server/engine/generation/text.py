"""From tokens to text as it is written: whole characters, and nothing of a stop text.

A character may span tokens, and so may a stop text: what may still turn into either is held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CONTEXT = 8
"""Tokens of the prompt that a text begins after: they settle the space before its first word."""
BROKEN = "\ufffd"
"""What bytes decode to that are no character, or not yet."""
HELD = 16
"""Tokens that are waited for until they are a character; so many are none."""


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
        self._ids, self._known = self._context(before)
        self._told = len(self._ids)
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def push(self, token: int, *, may_stop: bool = True) -> str:
        """The text that is certain after one more token; "" where nothing is yet.

        Args:
            may_stop: whether a stop text that is complete now ends the text.
        """
        self._ids.append(token)
        self._held += self._fresh()
        stops = self._stops if may_stop else ()
        found = [at for stop in stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            told, self._held = self._held[: min(found)], ""
            return told
        keep = max((_overlap(self._held, stop) for stop in stops), default=0)
        at = len(self._held) - keep
        told, self._held = self._held[:at], self._held[at:]
        return told

    def end(self) -> str:
        """What was held back, once nothing more comes."""
        told, self._held = self._held + self._fresh(whole=True), ""
        return told

    def _fresh(self, *, whole: bool = False) -> str:
        """What the newest tokens add to the text; "" while they may be part of a character.

        Tokens are decoded after those whose text is known, since some tell by them whether a space
        is due. Bytes that turn out to be no characters may change the text before them: it has gone
        out, and stays as it is.
        """
        new = self._ids[self._told :]
        if not new:
            return ""
        text, waits = self._decode(self._ids), len(new) < HELD
        if text.endswith(BROKEN) and waits and not whole:
            return ""
        grown = text.startswith(self._known)
        fresh = text[len(self._known) :] if grown else self._decode(new)
        if fresh or not waits:  # a special token has no text, and the next needs those before it
            self._ids, self._told, self._known = new, len(new), self._decode(new)
        return fresh

    def _context(self, before: Sequence[int]) -> tuple[list[int], str]:
        """The last tokens of a prompt, from a whole character on, and their text."""
        count = CONTEXT
        while True:
            ids = list(before[-count:])
            text = self._decode(ids)
            if count >= len(before) or not text.startswith(BROKEN):
                return ids, text.rstrip(BROKEN)
            count *= 2

    def _decode(self, ids: Sequence[int]) -> str:
        return self._backend.decode(list(ids), skip_special_tokens=True)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    most = min(len(text), len(stop) - 1)
    return next((n for n in range(most, 0, -1) if stop.startswith(text[-n:])), 0)
