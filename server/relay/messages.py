"""What is said across the seam: a whole request, then its answer in parts.

Plain frozen data that pickles. Knows nothing of HTTP libraries, nor of how messages travel.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with its body, as it came.

    Attributes:
        path: decoded, raw_path: as sent. client: address and port of who asks.
    """

    method: str
    path: str
    raw_path: bytes
    query: bytes
    headers: Headers
    body: bytes = b""
    scheme: str = "http"
    client: tuple[str, int] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The value of a header by its lower-case name; None where it was not sent."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Head:
    """How an answer begins, with the first of its body: most answers are one message.

    Attributes:
        more: whether chunks follow.
    """

    status: int
    headers: Headers
    body: bytes = b""
    more: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is next of the body."""

    body: bytes
    more: bool = True


Message = Head | Chunk


@dataclass(frozen=True, slots=True)
class Whole:
    """A complete answer, and which replica gave it."""

    replica: str
    head: Head


class Lost(Exception):
    """Who was asked has gone, and its answer with it, or what was left of it."""


class Absent(Exception):
    """There is nobody to ask."""


class Relay(Protocol):
    """A way to those that answer."""

    def ask(self, asked: Asked) -> AsyncGenerator[Message]:
        """The answer of one of them, part by part: a `Head`, then any chunks.

        Closing the generator ends the work on the other side.

        Raises:
            Lost: it ended before the answer did. Absent: there is none.
        """
        ...

    async def ask_all(self, asked: Asked, seconds: float) -> Sequence[Whole]:
        """The whole answers of all that answer in so many seconds."""
        ...
