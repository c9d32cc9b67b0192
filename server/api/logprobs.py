r"""How likely tokens were, in the shapes of OpenAI's two routes.

A token that is a part of a character has no text: it is told as `bytes:\xe2\x82`, as OpenAI does.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Sequence

from pydantic import BaseModel

from experts.backbones import LanguageModel
from experts.backbones.spelling import readable
from server.engine.generation.messages import Written


class TokenShare(BaseModel):
    """A token and its logarithmic probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TokenShare):
    """One token of the answer, and the likeliest in its place."""

    top_logprobs: list[TokenShare]


class ChatLogprobs(BaseModel):
    """Of each token of the answer."""

    content: list[TokenLogprob]


class CompletionLogprobs(BaseModel):
    """Of each token: itself, its logarithmic probability, the likeliest others, and its place.

    The token itself is always among the likeliest, so that there may be one more than was asked.
    """

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class Places:
    """Where the tokens of a text begin in it, in characters."""

    def __init__(self) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._at = 0

    def add(self, spelled: bytes) -> int:
        """The place of one more token."""
        at = self._at
        self._at += len(self._decoder.decode(spelled))
        return at


def chat_logprobs(backbone: LanguageModel, tokens: Sequence[Written]) -> dict[str, object]:
    """`ChatLogprobs` of some tokens."""

    def share(id: int, logprob: float | None) -> dict[str, object]:
        spelled = backbone.spelling.bytes_of(id)
        return {"token": readable(spelled), "logprob": logprob, "bytes": list(spelled)}

    return {"content": [
        {**share(t.token, t.logprob), "top_logprobs": [share(*other) for other in t.alternatives]}
        for t in tokens
    ]}  # fmt: skip


def completion_logprobs(
    backbone: LanguageModel, tokens: Sequence[Written], places: Places
) -> dict[str, object]:
    """`CompletionLogprobs` of some tokens, which go on where `places` is."""
    spelled = [backbone.spelling.bytes_of(t.token) for t in tokens]
    words = list(map(readable, spelled))
    likeliest = [
        {readable(backbone.spelling.bytes_of(id)): p for id, p in t.alternatives} for t in tokens
    ]
    return {
        "tokens": words,
        "token_logprobs": [t.logprob for t in tokens],
        "top_logprobs": [
            {**others, word: t.logprob}
            for t, word, others in zip(tokens, words, likeliest, strict=True)
        ],
        "text_offset": [places.add(one) for one in spelled],
    }
