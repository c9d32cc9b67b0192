"""What writers share: what a model is shown of a query, and the one sentence that it says of it.

Sentences are kept by the digest of what was asked, so that no text of a request is.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict

from routers.types import Query

SHOWN_INPUT = 500  # characters
SHOWN_CHOICES, SHOWN_CHOICE = 20, 80
LONGEST_SENTENCE = 300


class MalformedReply(ValueError):
    """What was said is not one sentence."""


class Sentences:
    """An LRU of sentences by what was asked for them."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self._sentences: OrderedDict[bytes, str] = OrderedDict()

    def get(self, asked: str) -> str | None:
        """The sentence that was said to this, if it is still known."""
        key = _digest(asked)
        if key in self._sentences:
            self._sentences.move_to_end(key)
        return self._sentences.get(key)

    def keep(self, asked: str, sentence: str) -> None:
        """Remember a sentence."""
        self._sentences[_digest(asked)] = sentence
        while len(self._sentences) > self.entries:
            self._sentences.popitem(last=False)


def shown(query: Query) -> tuple[str, str]:
    """The input and the choices (as JSON; empty where there are none), both cut."""
    choices = [choice[:SHOWN_CHOICE] for choice in query.choices[:SHOWN_CHOICES]]
    said = json.dumps(choices, ensure_ascii=False) if choices else ""
    return query.input[:SHOWN_INPUT], said


def one_sentence(content: str) -> str:
    """The one sentence in what a model said, without label, quotes or odd spaces.

    Raises:
        MalformedReply: it says nothing, several paragraphs or too much.
    """
    content = content.strip()
    # A model may announce its sentence ("Here it is:") on a line of its own.
    lines = [line.strip() for line in content.splitlines()]
    said = next((line for line in lines if line and not line.endswith(":")), "")
    sentence = " ".join(said.strip("\"'`*“”‘’ ").split())
    if "\n\n" in content or not any(map(str.isalpha, sentence)) or not sentence.isprintable():
        raise MalformedReply
    if len(sentence) > LONGEST_SENTENCE:
        raise MalformedReply
    return sentence


def _digest(asked: str) -> bytes:
    return hashlib.blake2b(asked.encode("utf-8", "surrogatepass"), digest_size=16).digest()
