"""The instruction of a query: the caller's own, or one that a writer makes.

Here are the protocol and the writer that needs no language model. Writers that speak HTTP or use
an engine live in `server.instructions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from routers.types import Query

Writer = Literal["caller", "template", "openai", "local"]
SHOWN_CHOICES = 5


@dataclass(frozen=True)
class Instruction:
    """An instruction and who wrote it. `note` says why another writer took over, if one did."""

    text: str
    writer: Writer
    note: str | None = None

    @property
    def sentence(self) -> str:
        """What the request router embeds.

        A template adds nothing to the query's other parts, which are embedded apart: it has none.
        """
        return "" if self.writer == "template" else self.text


class InstructionWriter(Protocol):
    """Writes one instruction per query, in the style of a task description."""

    name: Writer

    async def write(self, queries: Sequence[Query]) -> list[Instruction]:
        """One instruction per query; never fails: it falls back on the template and says why."""
        ...

    async def close(self) -> None:
        """Let go of what it holds; nothing is written after."""
        ...


def stand_in(query: Query, instruction: Instruction) -> str:
    """The one sentence for a router that reads nothing else of a query; empty where there is none.

    What a person or a model wrote; or the template, which says the choices; or the input itself.
    """
    if instruction.writer != "template" or query.choices:
        return instruction.text
    return query.input


def template(query: Query, note: str | None = None) -> Instruction:
    """The instruction that says in a sentence what the query holds already."""
    if not query.choices:
        return Instruction("Say what the input is about.", "template", note)
    shown = ", ".join(f'"{c}"' for c in query.choices[:SHOWN_CHOICES])
    more = len(query.choices) - SHOWN_CHOICES
    rest = f" and {more} more" if more > 0 else ""
    return Instruction(f"Choose for the input one of: {shown}{rest}.", "template", note)
