"""Instruction writer `local`: the bare backbone writes the sentence itself, shown a few examples.

Its prompts are rows of the running batch like any other, with no expert in force. A writer never
fails a request: whatever goes wrong, the template takes over and the note says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from experts.backbones import LanguageModel
from experts.errors import ExpertError
from routers.instructions import Instruction, Writer, template
from routers.policy import BASE
from routers.types import Query
from server.engine.generation.front import Writing
from server.engine.generation.messages import Prompt, Sampling
from server.errors import ServerError
from server.instructions.sentences import MalformedReply, Sentences, one_sentence, shown

HEAD = "What to do with inputs like this one, and which skills that takes, in one sentence.\n\n"
EXAMPLES = (
    ("The room was clean, but the street was loud all night.", '["good", "bad"]',
     "Decide whether a review is favourable, requiring sentiment analysis."),
    ("12 + 30 =", "", "Add the two numbers, requiring arithmetic."),
    ("Where does the river begin?", "",
     "Answer the question in a few words, requiring knowledge of geography."),
    ("My parcel has not arrived yet.", '["delivery", "payment", "returns"]',
     "Choose the topic of a customer's message, requiring understanding of intent."),
)  # fmt: skip
MOST_TOKENS = 48


class LocalWriter:
    """Writes instructions with the backbone that is served.

    Notes of instructions that the template wrote instead: `timeout`, `malformed` (it said no
    sentence), `too_long` (the examples do not fit its context), `unavailable`.

    Args:
        backbone: what writes. writing: where its prompts go. timeout_s: for one sentence.
        cache_entries: sentences kept.
    """

    name: Writer = "local"

    def __init__(
        self, backbone: LanguageModel, writing: Writing, *, timeout_s: float = 2.0,
        cache_entries: int = 4096,
    ) -> None:  # fmt: skip
        self._backbone, self._writing, self.timeout_s = backbone, writing, timeout_s
        self._sentences = Sentences(cache_entries)

    async def write(self, queries: Sequence[Query]) -> list[Instruction]:
        """See `InstructionWriter.write`; equal queries are asked once."""
        distinct = list(dict.fromkeys(queries))
        written = await asyncio.gather(*map(self._write, distinct))
        by_query = dict(zip(distinct, written, strict=True))
        return [by_query[query] for query in queries]

    async def close(self) -> None:
        """Nothing is held."""

    async def _write(self, query: Query) -> Instruction:
        asked = prompt_of(query)
        known = self._sentences.get(asked)
        if known is not None:
            return Instruction(known, self.name)
        tokens = self._backbone.tokens([asked])[0]
        if len(tokens) + MOST_TOKENS > self._backbone.context:
            return template(query, "too_long")
        try:
            async with asyncio.timeout(self.timeout_s):
                sentence = one_sentence(await self._continued(tokens))
        except TimeoutError:
            return template(query, "timeout")
        except MalformedReply:
            return template(query, "malformed")
        except (ServerError, ExpertError):
            return template(query, "unavailable")
        self._sentences.keep(asked, sentence)
        return Instruction(sentence, self.name)

    async def _continued(self, tokens: Sequence[int]) -> str:
        rules = Sampling(MOST_TOKENS, temperature=0, stop=("\n",))
        ticket = self._writing.begin([Prompt(tuple(tokens), BASE, rules)])
        async with aclosing(ticket.pieces()) as pieces:
            return "".join([piece.text async for piece in pieces])


def prompt_of(query: Query) -> str:
    """Examples, and the query in the same form, up to where its instruction begins."""
    input, choices = shown(query)
    asked = (" ".join(input.split()), choices, "")
    return HEAD + "\n".join(_one(*example) for example in (*EXAMPLES, asked)).rstrip()


def _one(input: str, choices: str, instruction: str) -> str:
    offered = f"Choices: {choices}\n" if choices else ""
    return f"Input: {input}\n{offered}Instruction: {instruction}\n"
